//! The places of a capture as a tree that is built once: what a key means is looked up, not worked out.
//!
//! Elements of an array share a place, and so do keys that are no plain names, as ids are: places say
//! nothing of a session but its shape, and their number has a bound.

use super::rules::{self, Area, Slot};
use super::vault::hash;

/// A place, as an index into the tree.
pub(super) type Place = u32;

/// The root: a record.
pub(super) const ROOT: Place = 0;

/// What is known of a place.
#[derive(Debug)]
pub(super) struct Node {
    parent: Place,
    name: Box<[u8]>,
    pub(super) slot: Slot,
    pub(super) area: Area,
    pub(super) mark: Mark,
    /// Its key is searched like a string.
    pub(super) is_odd: bool,
    element: Place,
    inner: Place,
}

/// What the value in a place tells about what stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    /// The exchange that a record belongs to.
    Exchange,
    /// The type of an event.
    Type,
    /// The item that an event adds to.
    Item,
}

/// The tree, with a table of its edges.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// Open addressing; 0 is free, as no edge leads to the root.
    table: Vec<Place>,
}

/// More places than any protocol has.
const LIMIT: usize = 20_000;
/// Entries of the table of edges: a power of two, and far more than there are places.
const TABLE: usize = 1 << 16;

impl Paths {
    pub(super) fn new() -> Self {
        let root = Node {
            parent: ROOT,
            name: Box::default(),
            slot: Slot::Plain,
            area: Area::Record,
            mark: Mark::None,
            is_odd: false,
            element: 0,
            inner: 0,
        };
        Self { nodes: vec![root], table: vec![0; TABLE] }
    }

    pub(super) fn node(&self, place: Place) -> &Node {
        &self.nodes[place as usize]
    }

    /// The last key of a place.
    pub(super) fn name(&self, place: Place) -> &[u8] {
        &self.node(place).name
    }

    /// The place of a key, if it is known.
    pub(super) fn get(&self, parent: Place, name: &[u8]) -> Option<Place> {
        let mut at = self.bucket(parent, name);
        loop {
            match self.table[at] {
                0 => return None,
                place => {
                    let node = &self.nodes[place as usize];
                    if node.parent == parent && *node.name == *name {
                        return Some(place);
                    }
                }
            }
            at = (at + 1) & (TABLE - 1);
        }
    }

    fn bucket(&self, parent: Place, name: &[u8]) -> usize {
        hash(u64::from(parent), name) as usize & (TABLE - 1)
    }

    /// The place of a key that is new here. An odd one shares its place with all odd ones.
    pub(super) fn add(&mut self, parent: Place, name: &[u8], is_odd: bool) -> Place {
        let (slot, area) = rules::key(self.node(parent).area, name);
        let (name, is_odd) = if is_odd || self.nodes.len() >= LIMIT || !is_plain(name) {
            (&b"*"[..], true)
        } else {
            (name, false)
        };
        if is_odd && let Some(place) = self.get(parent, name) {
            return place;
        }
        // A payload that is no text is written as an object of this one key.
        let is_digits = name == b"base64" && self.node(parent).slot == Slot::Payload;
        let slot = if is_digits { Slot::Base64 } else { slot };
        let (slot, area) = if is_odd { rules::key(self.node(parent).area, b"") } else { (slot, area) };
        let mark = match (self.node(parent).area, name) {
            (Area::Record, b"id") if parent == ROOT => Mark::Exchange,
            (Area::Body, b"type") => Mark::Type,
            (Area::Body, b"item_id" | b"index") => Mark::Item,
            _ => Mark::None,
        };
        self.insert(parent, name, slot, area, mark, is_odd)
    }

    fn insert(
        &mut self,
        parent: Place,
        name: &[u8],
        slot: Slot,
        area: Area,
        mark: Mark,
        is_odd: bool,
    ) -> Place {
        let place = self.nodes.len() as Place;
        self.nodes.push(Node { parent, name: name.into(), slot, area, mark, is_odd, element: 0, inner: 0 });
        let mut at = self.bucket(parent, name);
        while self.table[at] != 0 {
            at = (at + 1) & (TABLE - 1);
        }
        self.table[at] = place;
        place
    }

    /// The place of the elements of an array, which are what the array is.
    pub(super) fn element(&mut self, place: Place) -> Place {
        let node = self.node(place);
        if node.element == 0 {
            // `input` is the conversation if it is an array, and the arguments of a tool if it is an object.
            let is_conversation = node.area == Area::Input && self.node(node.parent).area != Area::Input;
            let area = if is_conversation { Area::Body } else { node.area };
            let (slot, mark) = (node.slot, Mark::None);
            let element = self.insert(place, b"[]", slot, area, mark, false);
            self.nodes[place as usize].element = element;
        }
        self.node(place).element
    }

    /// The place of what a string holds, once it is decoded.
    pub(super) fn inner(&mut self, place: Place) -> Place {
        let node = self.node(place);
        if node.inner == 0 {
            let area = if matches!(node.area, Area::Input | Area::Error | Area::Person) {
                node.area
            } else {
                Area::Body
            };
            let inner = self.insert(place, b"#", Slot::Free, area, Mark::None, false);
            self.nodes[place as usize].inner = inner;
        }
        self.node(place).inner
    }

    /// A place with keys of another area, as the parameters of a URL.
    pub(super) fn part(&mut self, place: Place, name: &[u8], slot: Slot, area: Area) -> Place {
        self.get(place, name).unwrap_or_else(|| self.insert(place, name, slot, area, Mark::None, false))
    }

    /// The place as a pattern: a JSON pointer with `*` for elements and odd keys, and `#` for a decoded string.
    pub(super) fn pattern(&self, mut place: Place) -> String {
        let mut names = Vec::new();
        while place != ROOT {
            let node = self.node(place);
            let name = String::from_utf8_lossy(&node.name).replace('~', "~0").replace('/', "~1");
            names.push(if name == "[]" { "*".to_owned() } else { name });
            place = node.parent;
        }
        names.iter().rev().fold(String::new(), |text, name| text + "/" + name)
    }
}

/// Whether a key is a name that tells nothing.
fn is_plain(name: &[u8]) -> bool {
    (1..=64).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-$:/ ".contains(byte))
        && !super::vault::looks_like_id(name)
}
