//! Load: what many clients at once get from a proxy, what that costs it, and whether it lasts.

pub mod resources;

pub mod slope;
