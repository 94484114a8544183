//! Streams of events as the faulty proxy changes them, piece by piece.

use super::Defect;

/// Whether pieces of a stream are changed or held.
pub(crate) fn takes_stream(defect: Defect) -> bool {
    use Defect::{
        CutsCleanEnd, DecodesPieces, DropsComments, DropsLastEvent, EndsCutWell, GathersStream, HoldsHead,
        HoldsSixWrites, JoinsDataLines, NormalisesLineEnds, RepeatsEvent, SwapsEvents,
    };
    matches!(
        defect,
        GathersStream
            | HoldsHead
            | HoldsSixWrites
            | DropsComments
            | NormalisesLineEnds
            | JoinsDataLines
            | DropsLastEvent
            | SwapsEvents
            | RepeatsEvent
            | DecodesPieces
            | CutsCleanEnd
            | EndsCutWell
    )
}

/// What a defect has kept of a stream.
#[derive(Default)]
pub(crate) struct Keeper {
    kept: Vec<u8>,
    pieces: usize,
}

impl Keeper {
    /// What goes on of the next piece.
    pub(crate) fn piece(&mut self, piece: &[u8], defect: Defect) -> Vec<u8> {
        self.pieces += 1;
        match defect {
            Defect::DecodesPieces => return String::from_utf8_lossy(piece).into_owned().into_bytes(),
            Defect::CutsCleanEnd | Defect::EndsCutWell => return piece.to_vec(),
            Defect::RepeatsEvent if self.pieces == 3 => return [piece, piece].concat(),
            Defect::RepeatsEvent => return piece.to_vec(),
            Defect::SwapsEvents if self.pieces != 4 => return self.release(piece),
            _ => self.kept.extend_from_slice(piece),
        }
        match defect {
            Defect::HoldsSixWrites if self.pieces.is_multiple_of(7) => std::mem::take(&mut self.kept),
            Defect::HoldsHead if self.pieces >= 4 => std::mem::take(&mut self.kept),
            _ => Vec::new(),
        }
    }

    /// The piece, and behind it the one that was kept.
    fn release(&mut self, piece: &[u8]) -> Vec<u8> {
        [piece, &std::mem::take(&mut self.kept)].concat()
    }

    /// What goes on at the end.
    pub(crate) fn end(self, defect: Defect) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.kept);
        match defect {
            Defect::DropsComments => text
                .split_inclusive('\n')
                .filter(|line| !line.starts_with(':'))
                .collect::<String>()
                .into_bytes(),
            Defect::NormalisesLineEnds => text.replace("\r\n", "\n").into_bytes(),
            Defect::JoinsDataLines => {
                text.replace("data: line one\ndata: line two", "data: line oneline two").into_bytes()
            }
            Defect::DropsLastEvent => {
                text.rfind("\n\n").map_or(String::new(), |at| text[..at + 2].to_owned()).into_bytes()
            }
            _ => self.kept,
        }
    }
}
