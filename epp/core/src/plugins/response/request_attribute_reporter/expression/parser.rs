//! Reads an expression and finds the type of each part.

use super::{Field, Kind, Node, Operator, Value};

/// Deepest nesting; more is refused instead of ending the stack.
const MAX_DEPTH: usize = 64;
const ROOT: &str = "usage";

type Typed = (Node, Kind);

/// The expression with the type of its value.
pub(super) fn parse(text: &str) -> Result<Typed, String> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let parsed = parser.choice()?;
    match parser.peek() {
        None => Ok(parsed),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// Operators of one precedence, the longer ones first, from the loosest to the tightest binding.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Modulo),
    ],
];

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    fn unexpected(&mut self) -> String {
        match self.peek() {
            Some(found) => format!("'{found}' at character {} is not understood here", self.at + 1),
            None => "ends too early".to_owned(),
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
        }
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn choice(&mut self) -> Result<Typed, String> {
        self.nested(|parser| {
            let (condition, kind) = parser.operators(0)?;
            if !parser.take("?") {
                return Ok((condition, kind));
            }
            if kind != Kind::Bool {
                return Err("'?' needs true or false before it".to_owned());
            }
            let (yes, yes_kind) = parser.choice()?;
            parser.expect(":")?;
            let (no, no_kind) = parser.choice()?;
            let kind = match (yes_kind, no_kind) {
                (yes, no) if yes == no => yes,
                (Kind::Bool, _) | (_, Kind::Bool) => {
                    return Err("'? :' needs two numbers or two truth values".to_owned());
                }
                _ => Kind::Double,
            };
            Ok((
                Node::Choose(Box::new(condition), Box::new(yes), Box::new(no)),
                kind,
            ))
        })
    }

    /// Operators of `level` and tighter, from left to right.
    fn operators(&mut self, level: usize) -> Result<Typed, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.operators(level + 1)?;
        while let Some((token, operator)) = operators.iter().find(|(token, _)| self.take(token)) {
            let right = self.operators(level + 1)?;
            let kind = kind_of(*operator, left.1, right.1).ok_or_else(|| {
                format!(
                    "'{token}' cannot be applied to {} and {}",
                    name(left.1),
                    name(right.1)
                )
            })?;
            left = (Node::Binary(*operator, Box::new(left.0), Box::new(right.0)), kind);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Typed, String> {
        self.nested(|parser| {
            if parser.take("!") {
                return match parser.unary()? {
                    (node, Kind::Bool) => Ok((Node::Not(Box::new(node)), Kind::Bool)),
                    _ => Err("'!' cannot be applied to a number".to_owned()),
                };
            }
            if parser.take("-") {
                return match parser.unary()? {
                    (_, Kind::Bool) => Err("'-' cannot be applied to a truth value".to_owned()),
                    (node, kind) => Ok((Node::Negate(Box::new(node)), kind)),
                };
            }
            parser.primary()
        })
    }

    fn primary(&mut self) -> Result<Typed, String> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.choice()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(first) if first.is_ascii_digit() || first == '.' => self.number(),
            Some(first) if first.is_ascii_alphabetic() || first == '_' => self.named(),
            _ => Err(self.unexpected()),
        }
    }

    fn number(&mut self) -> Result<Typed, String> {
        let rest = self.rest();
        let mut before = ' ';
        let end = rest.find(|next: char| {
            let is_sign = matches!(next, '+' | '-') && matches!(before, 'e' | 'E');
            before = next;
            !(next.is_ascii_alphanumeric() || next == '.' || is_sign)
        });
        let digits = &rest[..end.unwrap_or(rest.len())];
        self.at += digits.len();
        if let Ok(value) = digits.parse() {
            return Ok((Node::Constant(Value::Int(value)), Kind::Int));
        }
        match digits.parse::<f64>() {
            Ok(value) if value.is_finite() && digits.contains(['.', 'e', 'E']) => {
                Ok((Node::Constant(Value::Double(value)), Kind::Double))
            }
            _ => Err(format!("'{digits}' is no number in decimal digits, or too large")),
        }
    }

    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let end = rest.find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn named(&mut self) -> Result<Typed, String> {
        let word = self.word();
        match word {
            ROOT => Ok((Node::Field(self.field(false)?), Kind::Double)),
            "true" | "false" => Ok((Node::Constant(Value::Bool(word == "true")), Kind::Bool)),
            "int" | "double" if self.take("(") => {
                let (node, kind) = self.choice()?;
                self.expect(")")?;
                match (word, kind) {
                    (_, Kind::Bool) => Err(format!("'{word}()' cannot be applied to a truth value")),
                    ("int", _) => Ok((Node::ToInt(Box::new(node)), Kind::Int)),
                    _ => Ok((Node::ToDouble(Box::new(node)), Kind::Double)),
                }
            }
            "has" if self.take("(") => {
                if self.word() != ROOT {
                    return Err("'has()' needs a field of usage".to_owned());
                }
                let field = self.field(true)?;
                self.expect(")")?;
                Ok((Node::Has(field), Kind::Bool))
            }
            other if self.peek() == Some('(') => Err(format!(
                "the function '{other}' is not supported; has, int and double are"
            )),
            other => Err(format!("'{other}' is not known; numbers come from usage")),
        }
    }

    /// What follows `usage`. `is_object` also lets the object of details stand for what is in it.
    fn field(&mut self, is_object: bool) -> Result<Field, String> {
        let mut path: Vec<&str> = Vec::new();
        loop {
            if self.take(".") {
                path.push(self.word());
            } else if self.take("[") {
                let quote = self.peek().filter(|next| matches!(next, '"' | '\''));
                let quote = quote.ok_or_else(|| self.unexpected())?;
                let after = &self.rest()[1..];
                let end = after.find(quote).ok_or("a string is not closed")?;
                path.push(&after[..end]);
                self.at += end + 2;
                self.expect("]")?;
            } else {
                break;
            }
        }
        match path[..] {
            ["prompt_tokens"] => Ok(Field::Prompt),
            ["completion_tokens"] => Ok(Field::Completion),
            ["total_tokens"] => Ok(Field::Total),
            ["prompt_token_details", "cached_tokens"] => Ok(Field::Cached),
            ["prompt_token_details"] if is_object => Ok(Field::Cached),
            _ => Err(format!(
                "'{ROOT}{}{}' is no number of a response; prompt_tokens, completion_tokens, total_tokens and prompt_token_details.cached_tokens are",
                if path.is_empty() { "" } else { "." },
                path.join(".")
            )),
        }
    }
}

/// Type of a result; `None` when the operator does not take these types.
fn kind_of(operator: Operator, left: Kind, right: Kind) -> Option<Kind> {
    let are_bools = (left == Kind::Bool, right == Kind::Bool);
    match operator {
        Operator::And | Operator::Or => (are_bools == (true, true)).then_some(Kind::Bool),
        Operator::Equal | Operator::NotEqual => (are_bools.0 == are_bools.1).then_some(Kind::Bool),
        _ if are_bools != (false, false) => None,
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            Some(Kind::Bool)
        }
        Operator::Modulo => (left == Kind::Int && right == Kind::Int).then_some(Kind::Int),
        _ if left == Kind::Int && right == Kind::Int => Some(Kind::Int),
        _ => Some(Kind::Double),
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "an integer",
        Kind::Double => "a double (int() makes it an integer)",
        Kind::Bool => "a truth value",
    }
}
