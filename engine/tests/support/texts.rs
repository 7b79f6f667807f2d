//! Random texts of characters that some stage of a tokenizer treats in a special way.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;

fn pattern(regex: &str) -> BoxedStrategy<String> {
    string_regex(regex).unwrap().boxed()
}

/// A few characters of one kind. Some stage of the tokenizer treats each kind in a special way.
pub fn fragment() -> impl Strategy<Value = String> {
    let special = select(vec![
        "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[", "]", "[CL", "[CLS", "S]", "SEP]", "[[",
        "[cls]",
    ]);
    let words =
        select(vec!["the", "cat", "stones", "database", "unsearched", "Red", "BLUE", "ness", "zz"]);
    let odd = select(vec![
        // Zero width, byte order mark, direction marks, soft hyphen, replacement, noncharacter.
        "\u{200b}",
        "\u{200d}",
        "\u{feff}",
        "\u{202e}",
        "\u{ad}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{0}",
        // Lower case or decomposition changes the length or makes punctuation.
        "İ",
        "ẞ",
        "ŉ",
        "ǰ",
        "ΐ",
        "ﬁ",
        "Å",
        "\u{37e}",
        "\u{1fef}",
        "≠",
        "≮",
        "\u{387}",
        "각",
        "ガ",
        "\u{f900}",
        "\u{2f800}",
        "\u{1d15e}",
        "\u{fb2c}",
        "ཱི",
        "\u{0340}",
        "\u{1f600}\u{1f3fd}",
        "ी",
        "ா",
        "\u{20dd}",
    ]);
    prop_oneof![
        4 => words.prop_map(String::from),
        2 => special.prop_map(String::from),
        2 => odd.prop_map(String::from),
        3 => pattern("[a-zA-Z0-9]{1,8}"),
        2 => pattern(r"[ \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}]{1,3}"),
        2 => pattern("[!-/:-@\\[-`{-~]{1,3}"),
        1 => pattern(r"\p{P}{1,3}"),
        2 => pattern(r"[\u{300}-\u{36f}]{1,4}"),
        1 => pattern(r"\p{M}{1,3}"),
        1 => pattern(r"\p{C}{1,3}"),
        1 => pattern(r"[\u{1}-\u{8}\u{e}-\u{1f}\u{7f}-\u{9f}]{1,3}"),
        2 => pattern(r"[\u{4e00}-\u{4e80}漢字水火山川日本\u{3400}\u{20000}\u{2a6df}\u{2ceb0}]{1,4}"),
        1 => pattern(r"[\u{ac00}-\u{d7a3}]{1,4}"),
        1 => pattern(r"[\u{1100}-\u{11ff}]{1,4}"),
        1 => pattern(r"[\u{3041}-\u{30ff}]{1,4}"),
        1 => pattern(r"[\u{370}-\u{52f}]{1,5}"),
        1 => pattern(r"[\u{590}-\u{6ff}]{1,5}"),
        1 => pattern(r"[\u{900}-\u{e7f}]{1,5}"),
        1 => any::<char>().prop_map(String::from),
    ]
}

/// Any characters.
pub fn any_text() -> impl Strategy<Value = String> {
    any::<String>()
}

pub fn short_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

/// Texts of several pieces: runs of one fragment, up to more than 20,000 bytes. Some runs are one
/// word that becomes an unknown token, some make no token, and some make a token for each byte.
pub fn long_text() -> impl Strategy<Value = String> {
    let times =
        prop_oneof![4 => 1..3usize, 2 => 95..105usize, 2 => 500..3000usize, 1 => 5000..9000usize];
    let run = (fragment(), times).prop_map(|(part, times)| part.repeat(times));
    proptest::collection::vec(run, 1..12).prop_map(|parts| parts.concat())
}

/// Words of one length with a fragment between them, so that a piece ends at every possible place
/// in the pattern.
pub fn sliding_text() -> impl Strategy<Value = String> {
    (0..140usize, fragment(), fragment(), 60..200usize).prop_map(
        |(letters, between, other, times)| {
            let word =
                format!("{}{between}{}{other}", "x".repeat(letters), "y".repeat(letters / 3));
            word.repeat(times)
        },
    )
}

pub fn cases(cases: u32) -> ProptestConfig {
    // A failing text is printed in its smallest form. No file is written to the source tree.
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}
