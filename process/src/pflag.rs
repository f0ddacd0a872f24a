//! Flags as Go's pflag parses them, because upstream's charts and manifests write them that way:
//! `--x=v`, `--x v`, `--b`, `--b=false`, `-v=2`, `-v 2`, `-v2`.
//!
//! Source of syntax and texts: github.com/spf13/pflag, `flag.go`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::Duration;

use crate::duration;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Duration(Duration),
}

#[derive(Clone, Debug)]
struct Flag {
    value: Value,
    default: String,
    help: &'static str,
    shorthand: Option<char>,
    set: bool,
}

/// Why a command line was not accepted. The texts are pflag's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No such flag.
    #[error("unknown flag: --{0}")]
    Unknown(String),
    /// No such one-letter flag.
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShorthand(char, String),
    /// The command line ends before the value.
    #[error("flag needs an argument: {0}")]
    MissingValue(String),
    /// The value does not parse.
    #[error("invalid argument {value:?} for {flag:?} flag: {cause}")]
    Invalid {
        /// Flag as the user may write it.
        flag: String,
        /// Value as given.
        value: String,
        /// Go's parse error.
        cause: String,
    },
    /// Something like `--=x`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A word that is no flag.
    #[error("unknown command {0:?}: this role takes flags only")]
    Positional(String),
    /// An argument that is not UTF-8.
    #[error("argument {0:?} is not valid UTF-8")]
    NotUtf8(OsString),
    /// `-h` or `--help`: print [`FlagSet::usage`] and succeed.
    #[error("help requested")]
    Help,
}

/// The declared flags of a role.
#[derive(Clone, Debug, Default)]
pub struct FlagSet {
    flags: BTreeMap<&'static str, Flag>,
}

impl FlagSet {
    /// No flags yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn declare(mut self, name: &'static str, value: Value, default: String, help: &'static str) -> Self {
        let flag = Flag {
            value,
            default,
            help,
            shorthand: None,
            set: false,
        };
        let twice = self.flags.insert(name, flag);
        debug_assert!(twice.is_none(), "flag --{name} is declared twice");
        self
    }

    /// A boolean; `--name` alone means true.
    #[must_use]
    pub fn bool(self, name: &'static str, default: bool, help: &'static str) -> Self {
        self.declare(name, Value::Bool(default), default.to_string(), help)
    }

    /// A signed integer.
    #[must_use]
    pub fn int(self, name: &'static str, default: i64, help: &'static str) -> Self {
        self.declare(name, Value::Int(default), default.to_string(), help)
    }

    /// A floating-point number.
    #[must_use]
    pub fn float(self, name: &'static str, default: f64, help: &'static str) -> Self {
        self.declare(name, Value::Float(default), default.to_string(), help)
    }

    /// Any text.
    #[must_use]
    pub fn string(self, name: &'static str, default: &str, help: &'static str) -> Self {
        self.declare(
            name,
            Value::Text(default.to_owned()),
            format!("{default:?}"),
            help,
        )
    }

    /// A Go duration; `default` in the same notation.
    ///
    /// # Panics
    /// When `default` does not parse: a defect of the caller.
    #[must_use]
    pub fn duration(self, name: &'static str, default: &str, help: &'static str) -> Self {
        let value = duration::parse(default).unwrap_or_default();
        debug_assert!(duration::parse(default).is_ok(), "default of --{name}");
        self.declare(name, Value::Duration(value), default.to_owned(), help)
    }

    /// Gives the flag `name` a one-letter form.
    #[must_use]
    pub fn shorthand(mut self, name: &str, letter: char) -> Self {
        if let Some(flag) = self.flags.get_mut(name) {
            flag.shorthand = Some(letter);
        }
        self
    }

    /// The help text: one line per flag, sorted by name.
    pub fn usage(&self, program: &str) -> String {
        let mut text = format!("Usage of {program}:\n");
        for (name, flag) in &self.flags {
            let letter = flag
                .shorthand
                .map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
            let kind = match flag.value {
                Value::Bool(_) => "",
                Value::Int(_) => " int",
                Value::Float(_) => " float",
                Value::Text(_) => " string",
                Value::Duration(_) => " duration",
            };
            let left = format!("  {letter}--{name}{kind}");
            let default = if flag.default == "\"\"" {
                String::new()
            } else {
                format!(" (default {})", flag.default)
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{left:<48} {}{default}", flag.help);
        }
        text
    }

    /// Parses a command line without the program's name. Empty words are left out: templates make them of flags that
    /// they do not set, and pflag takes them for arguments that nobody reads.
    ///
    /// # Errors
    /// The first problem, in pflag's words.
    pub fn parse(self, arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, FlagError> {
        match self.parse_with_operands(arguments)? {
            (flags, operands) if operands.is_empty() => Ok(flags),
            (_, mut operands) => Err(FlagError::Positional(operands.swap_remove(0))),
        }
    }

    /// As [`Self::parse`] for a command that takes operands, which may stand anywhere.
    ///
    /// # Errors
    /// The first problem, in pflag's words.
    pub fn parse_with_operands(
        mut self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Flags, Vec<String>), FlagError> {
        let mut words = Vec::new();
        for argument in arguments {
            words.push(argument.into_string().map_err(FlagError::NotUtf8)?);
        }
        let (mut words, mut operands) = (words.into_iter(), Vec::new());
        while let Some(word) = words.next() {
            if word == "--" {
                operands.extend(words.by_ref());
            } else if let Some(long) = word.strip_prefix("--") {
                self.long(&word, long, &mut words)?;
            } else if word.len() > 1 && word.starts_with('-') {
                self.short(&word[1..], &mut words)?;
            } else if !word.is_empty() {
                operands.push(word);
            }
        }
        Ok((Flags { flags: self.flags }, operands))
    }

    fn long(
        &mut self,
        word: &str,
        long: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), FlagError> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(FlagError::Syntax(word.to_owned()));
        }
        let Some(flag) = self.flags.get_mut(name) else {
            return Err(if name == "help" {
                FlagError::Help
            } else {
                FlagError::Unknown(name.to_owned())
            });
        };
        let value = match value {
            Some(value) => value,
            None if matches!(flag.value, Value::Bool(_)) => "true".to_owned(),
            None => words
                .next()
                .ok_or_else(|| FlagError::MissingValue(format!("--{name}")))?,
        };
        set(flag, name, value)
    }

    /// `letters` is what stands behind one dash: flags without values may be grouped, the first
    /// one with a value takes the rest.
    fn short(&mut self, letters: &str, words: &mut impl Iterator<Item = String>) -> Result<(), FlagError> {
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            let after = &rest[letter.len_utf8()..];
            let found = self
                .flags
                .iter_mut()
                .find(|(_, flag)| flag.shorthand == Some(letter));
            let Some((name, flag)) = found else {
                return Err(if letter == 'h' {
                    FlagError::Help
                } else {
                    FlagError::UnknownShorthand(letter, rest.to_owned())
                });
            };
            if let Some(value) = after.strip_prefix('=') {
                return set(flag, name, value.to_owned());
            }
            if matches!(flag.value, Value::Bool(_)) {
                set(flag, name, "true".to_owned())?;
                rest = after;
                continue;
            }
            let value = if after.is_empty() {
                words
                    .next()
                    .ok_or_else(|| FlagError::MissingValue(format!("'{letter}' in -{letters}")))?
            } else {
                after.to_owned()
            };
            return set(flag, name, value);
        }
        Ok(())
    }
}

fn set(flag: &mut Flag, name: &str, text: String) -> Result<(), FlagError> {
    let parsed = match &flag.value {
        Value::Bool(_) => parse_bool(&text).map(Value::Bool),
        Value::Int(_) => parse_int(&text).map(Value::Int),
        Value::Float(_) => text
            .parse()
            .map(Value::Float)
            .map_err(|_| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
        Value::Duration(_) => duration::parse(&text).map(Value::Duration),
        Value::Text(_) => Ok(Value::Text(text.clone())),
    };
    match parsed {
        Ok(value) => {
            flag.value = value;
            flag.set = true;
            Ok(())
        }
        Err(cause) => {
            let written = flag
                .shorthand
                .map_or_else(|| format!("--{name}"), |letter| format!("-{letter}, --{name}"));
            Err(FlagError::Invalid {
                flag: written,
                value: text,
                cause,
            })
        }
    }
}

/// The words of Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed
        .map(|value| sign * value)
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// A parsed command line. Asking for a flag that was not declared is a defect of the caller: it is
/// asserted in debug builds and answered with the type's zero value otherwise.
#[derive(Clone, Debug)]
pub struct Flags {
    flags: BTreeMap<&'static str, Flag>,
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $ty:ty) => {
        $(#[$doc])*
        pub fn $name(&self, name: &str) -> $ty {
            match self.flags.get(name).map(|flag| &flag.value) {
                Some(Value::$variant(value)) => value.clone(),
                other => {
                    debug_assert!(false, "--{name} is not declared as {}: {other:?}", stringify!($variant));
                    <$ty>::default()
                }
            }
        }
    };
}

impl Flags {
    getter!(/** Value of a boolean flag. */ bool, Bool, bool);
    getter!(/** Value of an integer flag. */ int, Int, i64);
    getter!(/** Value of a floating-point flag. */ float, Float, f64);
    getter!(/** Value of a text flag. */ string, Text, String);
    getter!(/** Value of a duration flag. */ duration, Duration, Duration);

    /// Value of any flag as text; empty when it is not declared.
    pub fn text(&self, name: &str) -> String {
        match self.flags.get(name).map(|flag| &flag.value) {
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Int(value)) => value.to_string(),
            Some(Value::Float(value)) => value.to_string(),
            Some(Value::Text(value)) => value.clone(),
            Some(Value::Duration(value)) => format!("{value:?}"),
            None => String::new(),
        }
    }

    /// Whether the user gave the flag.
    pub fn is_set(&self, name: &str) -> bool {
        self.flags.get(name).is_some_and(|flag| flag.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> FlagSet {
        FlagSet::new()
            .int("grpc-port", 9002, "port of ext-proc")
            .bool("secure-serving", true, "TLS")
            .bool("tracing", true, "traces")
            .string("config-file", "", "configuration")
            .duration("refresh-metrics-interval", "50ms", "scrape interval")
            .int("v", 2, "verbosity")
            .shorthand("v", 'v')
            .bool("quick", false, "")
            .shorthand("quick", 'q')
    }

    fn parse(line: &str) -> Result<Flags, FlagError> {
        declared().parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_way_to_write_a_value() {
        for line in ["-v=4", "-v 4", "-v4", "--v=4", "--v 4", "-qv4", "-qv=4"] {
            assert_eq!(parse(line).unwrap().int("v"), 4, "{line}");
        }
        let flags =
            parse("--secure-serving=false --grpc-port 9 --refresh-metrics-interval=1m --tracing").unwrap();
        assert!(!flags.bool("secure-serving") && flags.bool("tracing"));
        assert_eq!(
            (flags.int("grpc-port"), flags.duration("refresh-metrics-interval")),
            (9, Duration::from_secs(60))
        );
        assert!(flags.is_set("tracing") && !flags.is_set("v"));
        assert_eq!(flags.string("config-file"), "");
    }

    #[test]
    fn empty_words_are_left_out_but_an_empty_value_is_one() {
        let words = ["", "--config-file", "", "", "-v=4"];
        let flags = declared().parse(words.map(OsString::from)).unwrap();
        assert!(flags.is_set("config-file") && flags.string("config-file").is_empty());
        assert_eq!(flags.int("v"), 4);
    }

    #[test]
    fn errors_are_in_pflags_words() {
        for (line, text) in [
            ("--foo", "unknown flag: --foo"),
            ("--foo=1", "unknown flag: --foo"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            ("--config-file", "flag needs an argument: --config-file"),
            ("-v", "flag needs an argument: 'v' in -v"),
            (
                "--grpc-port=ten",
                "invalid argument \"ten\" for \"--grpc-port\" flag: strconv.ParseInt: parsing \"ten\": invalid syntax",
            ),
            (
                "-v=x",
                "invalid argument \"x\" for \"-v, --v\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            ("--=1", "bad flag syntax: --=1"),
            ("serve", "unknown command \"serve\": this role takes flags only"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), text, "{line}");
        }
        assert_eq!(parse("--help").unwrap_err(), FlagError::Help);
        assert_eq!(parse("-h").unwrap_err(), FlagError::Help);
    }

    #[test]
    fn usage_lists_every_flag_with_its_default() {
        let usage = declared().usage("llmd epp");
        assert!(
            usage.contains("--grpc-port int") && usage.contains("(default 9002)"),
            "{usage}"
        );
        assert!(usage.contains("-v, --v int"), "{usage}");
    }
}
