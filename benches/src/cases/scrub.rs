//! Scrubbing a recorded session of 512 KiB: its values learnt, its records written over, what came of it verified.

use harness::scrub::{Learner, Options, Scrubber};

use crate::case::{Amount, Case, Prepared, forever};
use crate::codex_session;

pub(super) const CASES: &[Case] = &[
    Case { name: "scrub/learn", prepare: learning },
    Case { name: "scrub/replace", prepare: replacing },
    Case { name: "scrub/verify", prepare: verifying },
];

const SESSION: usize = 512 * 1024;

/// The records of a session without their line ends, and how many bytes they are.
fn records() -> (Vec<&'static [u8]>, Amount) {
    let session = forever(codex_session(SESSION));
    let records = session.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()).collect();
    (records, Amount::Bytes(session.len() as u64))
}

fn learn(records: &[&[u8]]) -> Scrubber {
    let mut learner = Learner::new(Options::default());
    records.iter().for_each(|record| learner.learn(record).expect("the traffic is well formed"));
    learner.finish().expect("there is room for all values")
}

fn learning() -> Prepared {
    let (records, amount) = records();
    Prepared::new(amount, move || learn(&records))
}

fn replacing() -> Prepared {
    let (records, amount) = records();
    let mut scrubber = learn(&records);
    let mut written = Vec::new();
    Prepared::new(amount, move || {
        let mut length = 0;
        for record in &records {
            written.clear();
            written.extend_from_slice(record);
            scrubber.scrub(&mut written).expect("the traffic is well formed");
            length += written.len();
        }
        length
    })
}

fn verifying() -> Prepared {
    let (records, amount) = records();
    let mut scrubber = learn(&records);
    let scrub = |record: &&[u8]| {
        let mut written = record.to_vec();
        scrubber.scrub(&mut written).expect("the traffic is well formed");
        written
    };
    let written: Vec<_> = records.iter().map(scrub).collect();
    Prepared::new(amount, move || {
        let mut verifier = scrubber.verifier();
        for record in &written {
            assert!(verifier.check(record).expect("it is JSON").is_empty(), "nothing is left");
        }
    })
}
