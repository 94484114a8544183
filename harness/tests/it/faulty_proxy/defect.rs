//! The defects, each with the check that must find it and the probe that it shows in.

use harness::diff::Check;

macro_rules! defects {
    ($($defect:ident: $check:ident in $probe:literal,)*) => {
        /// A way in which real proxies break traffic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Defect { $($defect,)* }

        /// Every defect, the check that finds it, and the probe it shows in.
        pub(crate) const DEFECTS: &[(Defect, Check, &str)] =
            &[$((Defect::$defect, Check::$check, $probe),)*];
    };
}

defects! {
    // Heads of requests.
    DropsHeader: RequestHeadersKept in "stream",
    RenamesHeader: RequestHeadersAdded in "stream",
    ReordersHeaders: RequestHeaderOrder in "stream",
    SwapsDuplicates: RequestHeaderOrder in "stream",
    RepeatsHeader: RequestHeadersKept in "stream",
    JoinsDuplicates: RequestHeadersKept in "stream",
    LowercasesNames: RequestHeaderCase in "stream",
    AddsForwardedFor: RequestHeadersAdded in "stream",
    AddsOwnHeader: RequestHeadersAdded in "stream",
    RewritesUserAgent: RequestHeadersKept in "stream",
    DropsQuery: PathAndQuery in "query",
    DecodesEscapes: PathAndQuery in "escaped-slash",
    JoinsSlashes: PathAndQuery in "double-slash",
    UppercasesMethod: Method in "method-Report",
    AddsConnectionField: HopByHop in "error-429",
    // Bodies of requests.
    ReencodesJson: RequestBody in "odd-json",
    ChangesEscapes: RequestBody in "odd-json",
    AddsNewline: RequestBody in "odd-json",
    DecodesRequest: ContentEncoding in "encoded-zstd",
    RecodesRequest: ContentEncoding in "encoded-zstd",
    CutsUpload: BigBody in "big-request",
    // How often.
    SendsTwice: SentOnce in "stream",
    AsksAgainAfterCut: SentOnce in "cut-in-chunk",
    AnswersItself: ReachesUpstream in "stream",
    SaysTheLengthTwice: UnexpectedRequest in "stream",
    AsksOnItsOwn: UnexpectedRequest in "stream",
    // Heads of responses.
    MapsStatus: Status in "error-429",
    DropsRetryAfter: RetryAfter in "error-429",
    CollapsesCookies: ResponseHeaderDuplicates in "duplicates",
    SwapsResponseDuplicates: ResponseHeaderOrder in "duplicates",
    DropsResponseHeader: ResponseHeadersKept in "duplicates",
    AddsResponseHeader: ResponseHeadersAdded in "duplicates",
    LowercasesResponse: ResponseHeaderCase in "duplicates",
    DropsContentEncoding: ContentEncoding in "encoded-gzip",
    // Bodies of responses.
    SwallowsErrorBody: ErrorBody in "error-429",
    DecodesResponse: ContentEncoding in "encoded-gzip",
    CutsDownload: BigBody in "big-response",
    PromisesTooMuch: CleanEnd in "odd-json",
    // Streams.
    GathersStream: ChunkDelay in "stream",
    HoldsHead: FirstByteDelay in "stream",
    HoldsSixWrites: ChunkDelay in "stream",
    DropsComments: ResponseBody in "odd-stream",
    NormalisesLineEnds: ResponseBody in "odd-stream",
    JoinsDataLines: EventOrder in "odd-stream",
    DropsLastEvent: ResponseBody in "odd-stream",
    SwapsEvents: EventOrder in "stream",
    RepeatsEvent: EventOrder in "stream",
    DecodesPieces: ResponseBody in "odd-stream",
    DelaysFirstByte: FirstByteDelay in "stream",
    // Ends.
    EndsCutWell: CutSeenAsCut in "cut-in-chunk",
    EndsResetWell: CutSeenAsCut in "reset-until-close",
    CutsCleanEnd: CleanEnd in "stream",
    KeepsUpstream: Cancellation in "left-in-stream",
    LosesPatience: SlowFirstByte in "slow-first-byte",
    TakesHalfCloseForLeaving: HalfClose in "half-close",
    // WebSockets.
    DropsPing: WsMessages in "ws-ping",
    SplitsMessages: WsMessages in "ws-turn",
    SendsBinary: WsMessages in "ws-turn",
    SwapsMessages: WsMessages in "ws-turn",
    RepeatsMessage: WsMessages in "ws-turn",
    CutsLongMessage: WsMessages in "ws-long",
    ReencodesMessage: WsMessages in "ws-turn",
    GathersMessages: ChunkDelay in "ws-turn",
    FramesAnew: WsFrames in "ws-fragments",
    LosesCloseCode: WsCloseCode in "ws-close-4000-by-upstream",
    DropsCloseFrame: WsCloseCode in "ws-close-1008-by-client",
    AgreesToDeflate: WsExtensions in "ws-turn",
    AddsSubprotocol: WsSubprotocol in "ws-turn",
    DropsSubprotocol: WsSubprotocol in "ws-subprotocol",
    AcceptsWrongly: WsHandshake in "ws-turn",
    RefusesWith502: WsRefusedUpgrade in "ws-refused-426",
    // Pools.
    MovesContinuation: ContinuationOwner in "continuation-1",
    LeaksTurnState: NoCrossAccountLeak in "continuation-1",
    LeaksToken: NoCrossAccountLeak in "continuation-1",
    MixesAccounts: NoCrossAccountLeak in "continuation-1",
    TellsClientTheToken: NoCrossAccountLeak in "continuation-1",
    KeepsClientsToken: RequestHeadersReplaced in "continuation-1",
    ForwardsCookie: RequestHeadersDropped in "duplicates",
    PassesSetCookie: ResponseHeadersDropped in "duplicates",
}

impl Defect {
    /// Whether a standard allows it, so that it is told and not held against a proxy.
    pub(crate) fn is_lawful(self) -> bool {
        matches!(
            self,
            Self::ReordersHeaders
                | Self::JoinsDuplicates
                | Self::LowercasesNames
                | Self::AddsForwardedFor
                | Self::AddsConnectionField
                | Self::LowercasesResponse
                | Self::TakesHalfCloseForLeaving
                | Self::FramesAnew
        )
    }

    /// Whether it is one of a pool.
    pub(crate) fn is_pools(self) -> bool {
        self as usize >= Self::MovesContinuation as usize
    }
}
