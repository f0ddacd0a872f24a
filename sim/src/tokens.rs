//! Tokens: a cheap, deterministic word-piece cut of about four characters, and a small vocabulary to answer with.
//!
//! A piece is an optional leading blank and up to [`PIECE`] characters of one kind (letters or digits, other
//! non-blank, blank). Its id is a hash of its bytes, so an answer that comes back in the next turn's prompt
//! is cut into the ids it was generated with, and prefix caches work across turns.

use xxhash_rust::xxh64::xxh64;

/// Most characters in a piece, the leading blank not counted.
const PIECE: usize = 5;

/// Ids are below this number.
pub const VOCABULARY_SIZE: u32 = 128_000;

/// Words an answer is made of; each is one piece.
pub const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "was", "for", "on", "are", "with", "as",
    "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "hot", "word", "but", "what",
    "some", "we", "can", "out", "other", "were", "all", "there", "when", "up", "use", "your", "how", "said",
    "an", "each", "she", "which", "do", "their", "time", "if", "will", "way", "about", "many", "then",
    "them", "write", "would", "like", "so", "these", "her",
];

/// Id of one piece.
pub fn id(piece: &str) -> u32 {
    (xxh64(piece.as_bytes(), 0) % u64::from(VOCABULARY_SIZE)) as u32
}

/// A word for a token id that was not made here (prompts given as ids).
pub fn word(id: u32) -> &'static str {
    WORDS[id as usize % WORDS.len()]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Blank,
    Other,
}

fn kind(c: char) -> Kind {
    if c.is_alphanumeric() {
        Kind::Word
    } else if c.is_whitespace() {
        Kind::Blank
    } else {
        Kind::Other
    }
}

/// Cuts a text into pieces; together they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = rest.split_at(piece_length(rest));
        rest = tail;
        Some(piece)
    })
}

fn piece_length(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    let Some((_, first)) = characters.next() else {
        return 0;
    };
    let mut of = kind(first);
    let mut count = 1;
    if first == ' ' {
        match characters.peek() {
            Some((_, next)) if kind(*next) != Kind::Blank => {
                of = kind(*next);
                count = 0;
            }
            _ => {}
        }
    }
    for (at, c) in characters {
        if kind(c) != of || count == PIECE {
            return at;
        }
        count += 1;
    }
    text.len()
}

/// Token ids of a text.
pub fn encode(text: &str) -> Vec<u32> {
    pieces(text).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn english_is_about_four_characters_a_token() {
        let text =
            "The quick brown fox jumps over the lazy dog, and then it internationalises 12345678 tokens.";
        let count = encode(text).len();
        assert!(
            (text.len() / 5..=text.len() / 3).contains(&count),
            "{count} tokens for {} bytes",
            text.len()
        );
        assert_eq!(pieces("a  b, c").collect::<Vec<_>>(), ["a", "  ", "b", ",", " c"]);
    }

    #[test]
    fn each_word_of_an_answer_is_one_piece() {
        for word in WORDS {
            assert_eq!(pieces(word).count(), 1, "{word}");
            assert_eq!(pieces(&format!(" {word}")).count(), 1, "{word}");
        }
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_text(text in "\\PC*") {
            prop_assert_eq!(pieces(&text).collect::<String>(), text);
        }

        #[test]
        fn a_text_cut_at_a_blank_before_a_word_has_the_same_tokens(a in "[a-z]{1,9}( [a-z]{1,9}){0,5}", b in "( [a-z]{1,9}){1,5}") {
            let together = encode(&format!("{a}{b}"));
            let mut apart = encode(&a);
            apart.extend(encode(&b));
            prop_assert_eq!(together, apart);
        }
    }
}
