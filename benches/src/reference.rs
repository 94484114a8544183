//! The reference: fixed work that no change of ours can make faster or slower, measured beside every case.
//!
//! A case is judged by its ratio to this, so the mix is that of the cases: bytes looked at one by one, a map
//! with text keys, memory that is allocated and copied. It uses the standard library alone and none of the
//! instructions that some processors have and others lack (SHA, wide vectors), so that a ratio means nearly the
//! same on another machine.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::case::{Amount, Prepared};

/// What the reference is called where cases have names.
pub const NAME: &str = "reference";

/// How many bytes are looked at, and how many are copied, in one run.
const BYTES: usize = 16 * 1024;

/// How many keys the map has.
const KEYS: usize = 256;

/// `HashMap` with a hasher that has no secret: the same walk in every process.
type Map = HashMap<String, usize, BuildHasherDefault<DefaultHasher>>;

/// The work, whose result is a number that depends on all of it.
#[must_use]
pub fn prepare() -> Prepared {
    let text: Vec<u8> =
        (0..BYTES).map(|at| b"{\"type\":\"delta\",\"text\":\"word \"}\n"[at * 7 % 32]).collect();
    let names: Vec<String> = (0..KEYS).map(|at| format!("name-{:03}", at * 37 % KEYS)).collect();
    let map: Map = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
    Prepared::new(Amount::One, move || work(&text, &names, &map))
}

#[inline(never)]
fn work(text: &[u8], names: &[String], map: &Map) -> u64 {
    let mut hash = scan(text);
    for name in names {
        hash ^= map.get(name).map_or(0, |at| *at as u64).rotate_left(7);
    }
    let mut copied = Vec::new();
    for line in text.chunks(512) {
        copied.push(line.to_vec());
    }
    hash ^ copied.iter().map(|line| u64::from(line[line.len() / 2])).sum::<u64>()
}

/// A hash of every byte and of where quotes are: a loop that depends on what it did before, and branches.
fn scan(text: &[u8]) -> u64 {
    let (mut hash, mut quotes) = (0xCBF2_9CE4_8422_2325_u64, 0);
    for byte in text {
        if *byte == b'"' {
            quotes += 1;
            hash = hash.rotate_left(5);
        }
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash ^ quotes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_work_counts() {
        let text = vec![b'"'; 1024];
        let names = vec!["a".to_owned(), "b".to_owned()];
        let map: Map = names.iter().cloned().zip([1, 2]).collect();
        let result = work(&text, &names, &map);
        assert_eq!(work(&text, &names, &map), result);
        assert_ne!(work(&text, &names[..1], &map), result);
        assert_ne!(work(&text, &names, &Map::default()), result);
        let mut other = text.clone();
        other[0] = b'x';
        assert_ne!(work(&other, &names, &map), result);
    }
}
