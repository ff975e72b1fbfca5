//! Walking many sorted lists of names as one, without putting all names together first.
//!
//! A source is a prefix and names below it. All names of a source come after its prefix, so a source is opened only
//! when the walk reaches its prefix, and dropped when it is through: at any time a handful are open, and a name is
//! text only while it is looked at.

use std::cmp::Ordering;

/// A prefix and the names below it, in order.
pub(super) trait Source {
    /// What all names begin with.
    fn prefix(&self) -> &str;
    /// The name at `position` below the prefix; `None` past the last.
    fn name(&self, position: usize) -> Option<&str>;
}

/// How names are ordered.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// Byte by byte (text and JSON).
    Bytes,
    /// Token by token, dots between (Prometheus).
    Tokens,
}

impl Order {
    pub(super) fn compare(self, a: &str, b: &str) -> Ordering {
        match self {
            Order::Bytes => a.cmp(b),
            Order::Tokens => {
                let common = a.bytes().zip(b.bytes()).position(|(a, b)| a != b);
                // A dot ends a token, and a token that ends is less than one that goes on.
                let rank = |byte: u8| if byte == b'.' { 0 } else { byte };
                match common {
                    Some(at) => rank(a.as_bytes()[at]).cmp(&rank(b.as_bytes()[at])),
                    None => a.len().cmp(&b.len()),
                }
            }
        }
    }
}

struct Cursor {
    source: usize,
    position: usize,
    name: String,
    /// Where the name leaves the prefix.
    prefix: usize,
}

/// Calls `visit` with each distinct name and where it stands: (index of the source, position).
pub(super) fn walk<S: Source>(sources: &[S], order: Order, mut visit: impl FnMut(&str, &[(usize, usize)])) {
    let mut waiting: Vec<usize> = (0..sources.len()).collect();
    waiting.sort_by(|&a, &b| order.compare(sources[a].prefix(), sources[b].prefix()));
    let mut waiting = waiting.into_iter().peekable();
    let mut open: Vec<Cursor> = Vec::new();
    let mut places = Vec::new();
    let mut current = String::new();
    loop {
        let least = open
            .iter()
            .min_by(|a, b| order.compare(&a.name, &b.name))
            .map(|cursor| cursor.name.as_str());
        if let Some(&next) = waiting.peek()
            && least.is_none_or(|least| order.compare(sources[next].prefix(), least) != Ordering::Greater)
        {
            waiting.next();
            if let Some(first) = sources[next].name(0) {
                let prefix = sources[next].prefix();
                open.push(Cursor {
                    source: next,
                    position: 0,
                    name: [prefix, first].concat(),
                    prefix: prefix.len(),
                });
            }
            continue;
        }
        let Some(least) = least else { return };
        current.clear();
        current.push_str(least);
        places.clear();
        open.retain_mut(|cursor| {
            while cursor.name == current {
                places.push((cursor.source, cursor.position));
                cursor.position += 1;
                let Some(name) = sources[cursor.source].name(cursor.position) else {
                    return false;
                };
                cursor.name.truncate(cursor.prefix);
                cursor.name.push_str(name);
            }
            true
        });
        visit(&current, &places);
    }
}
