//! A cache of a backend's last texts and their embeddings.

use std::rc::Rc;

use gte_engine::Embedding;
use lru::LruCache;

/// The most bytes that the memo holds, texts and vectors together.
const MAX_BYTES: usize = 4 << 20;

/// Longer texts are not remembered. Search strings and the rows of an upsert are shorter, and one
/// entry must not evict all others.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Evicts the least recently used texts, by number and by bytes. The text alone is the key, because
/// a memo belongs to one loaded model and is dropped with it.
pub struct Memo {
    entries: LruCache<Box<str>, Rc<Embedding>>,
    bytes: usize,
}

impl Memo {
    pub fn new() -> Memo {
        Memo { entries: LruCache::unbounded(), bytes: 0 }
    }

    /// Whether a text is small enough to be remembered.
    pub fn remembers(text: &str) -> bool {
        text.len() <= MAX_TEXT_BYTES
    }

    /// The embedding of a text, if it is remembered.
    pub fn get(&mut self, text: &str) -> Option<Rc<Embedding>> {
        if Memo::remembers(text) { self.entries.get(text).cloned() } else { None }
    }

    /// Remembers a text. The memo then holds at most `size` texts.
    pub fn put(&mut self, text: &str, embedding: Rc<Embedding>, size: usize) {
        if size == 0 || !Memo::remembers(text) {
            return;
        }
        self.bytes += cost(text);
        if let Some((old, _)) = self.entries.push(text.into(), embedding) {
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

fn cost(text: &str) -> usize {
    text.len() + size_of::<Embedding>() + 64
}
