//! What is run: which accounts stand behind the proxy, and how clients get to it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::clients::Client;
use harness::clients::codex::{Mode, Reach};
use harness::compat::{
    Between, CaseResult, Check, Lane, PATIENCE, Player, Report, Runner, Story, Upstream, scenarios, stories,
};
use harness::mock::script::CallName;
use harness::mock::{Account, Mock};

use super::proxy::Home;
use super::{Outcome, killed};

/// A part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// Clients that are told the address of `prodex serve`.
    Serve,
    /// Clients that `prodex run` starts.
    Run,
    /// Clients whose conversation outlives a limit, the proxy or a compaction, each before a pool of its own.
    Continuity,
    /// Clients in front of a pool whose first account is used up and whose second has an expired token.
    Pool,
    /// Clients that `prodex run` starts, and whose proxy is killed within a turn and between two.
    Killed,
}

impl Section {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [Self::Serve, Self::Run, Self::Pool, Self::Continuity, Self::Killed];

    fn name(self) -> &'static str {
        match self {
            Self::Serve => "prodex serve",
            Self::Run => "prodex run",
            Self::Pool => "prodex serve, one account used up, one token expired",
            Self::Continuity => "prodex serve, conversations that outlive something",
            Self::Killed => "prodex run, its proxy killed within a turn and between two",
        }
    }

    fn modes(self) -> &'static [Mode] {
        match self {
            Self::Serve | Self::Pool => &Mode::ALL,
            // The launcher defines no provider, so the other two modes are not its own.
            Self::Run => &[Mode::ChatgptSplit, Mode::ChatgptTls, Mode::ApiKey],
            // What only one account can read is a ChatGPT account's.
            Self::Killed => &[Mode::ChatgptSplit, Mode::ChatgptTls],
            // Over a WebSocket, as most clients run.
            Self::Continuity => &[Mode::ChatgptSplit],
        }
    }

    fn accounts(self) -> Vec<Account> {
        let account = |id: &str| Account::new(id).api_key(format!("key-of-{id}"));
        match self {
            Self::Serve | Self::Run => vec![account("pool")],
            // A story has its own.
            Self::Continuity | Self::Killed => Vec::new(),
            Self::Pool => {
                vec![account(USED_UP).turns_left(0), account(EXPIRED).expired(), account("c-good")]
            }
        }
    }

    /// Runs the section: every client in every mode, each with a mock and a proxy of its own, so that what
    /// one has learnt does not help the next.
    pub(crate) async fn run(
        self,
        program: &Path,
        clients: &[(Client, PathBuf)],
        each: &mut impl FnMut(&CaseResult),
    ) -> Result<Outcome> {
        let mut report = Report { target: self.name().to_owned(), results: Vec::new() };
        let mut checks = Vec::new();
        for client in clients {
            for mode in self.modes() {
                let place = format!("{} {}", client.0, mode.name());
                let (results, more) = self.run_mode(program, client, *mode, each).await?;
                report.results.extend(results);
                checks.extend(
                    more.into_iter().map(|check| Check { what: format!("{place}: {}", check.what), ..check }),
                );
            }
        }
        Ok(Outcome { report, checks })
    }

    async fn run_mode(
        self,
        program: &Path,
        client: &(Client, PathBuf),
        mode: Mode,
        each: &mut impl FnMut(&CaseResult),
    ) -> Result<(Vec<CaseResult>, Vec<Check>)> {
        match self {
            Self::Continuity => return tell_all(program, client, mode, each).await,
            Self::Killed => return killed::run(program, client, mode, each).await,
            Self::Serve | Self::Run | Self::Pool => {}
        }
        let upstream = Upstream::start(self.accounts()).await?;
        let mock = &upstream.plain;
        let home = Home::make(program, upstream.accounts()).await?;
        let (reach, serving) = if self == Self::Run {
            (Reach::Wrapper(home.wrapper(mock, mode.needs_tls())), None)
        } else {
            let serving = home.serve(mock.base_url(), mode.needs_tls()).await?;
            (Reach::Endpoint(serving.endpoint.clone()), Some(serving))
        };
        let runner = Runner::new(self.name(), vec![Lane { mode, mock, reach }]);
        let report = runner.run(std::slice::from_ref(client), &scenarios(), each).await?;
        let mut checks = Vec::new();
        if self == Self::Pool {
            checks.extend(check_pool(mock, mode));
        }
        if let Some(serving) = serving {
            checks.push(serving.stop().await?);
        }
        checks.push(home.check_log());
        Ok((report.results, checks))
    }
}

/// Plays every story, each with a mock and a proxy of its own.
async fn tell_all(
    program: &Path,
    client: &(Client, PathBuf),
    mode: Mode,
    each: &mut impl FnMut(&CaseResult),
) -> Result<(Vec<CaseResult>, Vec<Check>)> {
    let (mut results, mut checks) = (Vec::new(), Vec::new());
    for story in stories() {
        let (result, more) = tell(program, client, mode, &story).await?;
        each(&result);
        results.push(result);
        let name = story.scenario.name;
        checks
            .extend(more.into_iter().map(|check| Check { what: format!("{name}: {}", check.what), ..check }));
    }
    Ok((results, checks))
}

async fn tell(
    program: &Path,
    (client, codex): &(Client, PathBuf),
    mode: Mode,
    story: &Story,
) -> Result<(CaseResult, Vec<Check>)> {
    let upstream = Upstream::start(story.accounts.clone()).await?;
    let mock = &upstream.plain;
    let home = Home::make(program, upstream.accounts()).await?;
    let mut serving = home.serve(mock.base_url(), mode.needs_tls()).await?;
    let lane = Lane { mode, mock, reach: Reach::Endpoint(serving.endpoint.clone()) };
    let mut player = Player::begin(client, codex, &lane, &story.scenario, PATIENCE).await?;
    let mut checks = Vec::new();
    while player.step().await? {
        if story.between == Between::Restart {
            checks.push(serving.stop().await?);
            serving = home.serve(mock.base_url(), mode.needs_tls()).await?;
            player.move_to(serving.endpoint.clone());
        }
    }
    let result = player.judge().await;
    checks.push(serving.stop().await?);
    checks.push(home.check_log());
    Ok((result, checks))
}

/// The first profile in order, so that a fresh conversation begins with it.
const USED_UP: &str = "a-used-up";

/// The second.
const EXPIRED: &str = "b-expired";

/// What the journal of a pool must show: who was asked, and how often.
fn check_pool(mock: &Mock, mode: Mode) -> Vec<Check> {
    let refusals = mock.account(USED_UP).map_or(0, |state| state.refusals);
    let turns = mock.account(USED_UP).map_or(0, |state| state.turns);
    let mut checks = vec![Check {
        what: "the account at its limit is asked once and serves nothing".to_owned(),
        ok: refusals == 1 && turns == 0,
        seen: format!("{refusals} refusals, {turns} turns"),
    }];
    // An API key does not expire.
    if !matches!(mode, Mode::ApiKey | Mode::Custom) {
        let renewals = mock.journal().of(CallName::Token).len();
        let turns = mock.account(EXPIRED).map_or(0, |state| state.turns);
        checks.push(Check {
            what: "the expired token is renewed once, and its account serves".to_owned(),
            ok: renewals == 1 && turns > 0,
            seen: format!("{renewals} renewals, {turns} turns"),
        });
    }
    checks
}
