//! The parts whose speed is guarded: named cases with inputs of their own, and how a case is measured.
//!
//! A case is defined once, and three programs in `benches/benches` run it: `parts` with criterion, for whoever
//! makes one faster; `gate` against the reference, for `cargo xtask bench-check`; and `instructions` under
//! callgrind. What needs a disk (`state`) or a recording of 32 MB (`scrub`) has a program of its own and is
//! not guarded. Nothing here decides what is too slow: that is `benches/thresholds.toml` and `xtask`.

pub mod case;

pub mod cases;

pub mod reference;

pub mod measure;

pub mod session;

pub use session::codex_session;
