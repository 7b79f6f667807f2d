//! A cache of a backend's last texts and their embeddings.

use std::rc::Rc;

use gte_engine::{Embedding, Role};
use lru::LruCache;

use crate::pg::user::Asker;

/// The most bytes that the memo holds, texts and vectors together.
const MAX_BYTES: usize = 4 << 20;

/// Longer texts are not remembered. Search strings and the rows of an upsert are shorter, and one
/// entry must not evict all others.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Evicts the least recently used texts, by number and by bytes. Text, role and asker are the key: in a
/// pooled session, a hit would tell a role which texts another role has embedded. The model is not,
/// because a memo belongs to one loaded model and is dropped with it.
pub struct Memo {
    entries: LruCache<Key, Rc<Embedding>>,
    bytes: usize,
}

/// The bytes of the asker, one for the role of the text, then those of the text.
type Key = Box<[u8]>;

impl Memo {
    pub fn new() -> Memo {
        Memo { entries: LruCache::unbounded(), bytes: 0 }
    }

    /// Whether a text is small enough to be remembered.
    pub fn remembers(text: &str) -> bool {
        text.len() <= MAX_TEXT_BYTES
    }

    /// The embedding of a text in a role, if it is remembered for this asker.
    pub fn get(&mut self, asker: Asker, role: Role, text: &str) -> Option<Rc<Embedding>> {
        if Memo::remembers(text) {
            self.entries.get(&key(asker, role, text)).cloned()
        } else {
            None
        }
    }

    /// Remembers a text for this asker. The memo then holds at most `size` texts.
    pub fn put(
        &mut self,
        asker: Asker,
        role: Role,
        text: &str,
        embedding: Rc<Embedding>,
        size: usize,
    ) {
        if size == 0 || !Memo::remembers(text) {
            return;
        }
        let key = key(asker, role, text);
        self.bytes += cost(&key);
        if let Some((old, _)) = self.entries.push(key, embedding) {
            self.bytes -= cost(&old);
        }
        self.shrink_to(size);
    }

    /// Evicts texts until the memo holds at most `size` of them and keeps the limit of bytes.
    pub fn shrink_to(&mut self, size: usize) {
        while self.entries.len() > size || self.bytes > MAX_BYTES {
            match self.entries.pop_lru() {
                Some((old, _)) => self.bytes -= cost(&old),
                None => break,
            }
        }
    }
}

fn key(asker: Asker, role: Role, text: &str) -> Key {
    let role = match role {
        Role::Document => 0,
        Role::Query => 1,
    };
    [asker.bytes().as_slice(), &[role], text.as_bytes()].concat().into()
}

fn cost(key: &Key) -> usize {
    key.len() + size_of::<Embedding>() + 64
}
