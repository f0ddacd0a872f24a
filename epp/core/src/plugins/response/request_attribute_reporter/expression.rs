//! The part of CEL that a number made of usage needs.
//!
//! `usage.prompt_tokens`, `.completion_tokens`, `.total_tokens`, `.prompt_token_details.cached_tokens` (also as
//! `usage["…"]`), numbers, `true`, `false`, `+ - * / %`, comparisons, `&& || !`, `? :`, `has()`, `int()`, `double()` and
//! parentheses. Fields of usage are doubles, as they are upstream; arithmetic of an integer with a double, which upstream
//! compiles but cannot compute, is done with doubles.

mod parser;

use llmd_openai::Usage;

/// An expression whose value is a number.
#[derive(Debug)]
pub(super) struct Number(Node);

/// An expression whose value is true or false.
#[derive(Debug)]
pub(super) struct Condition(Node);

impl Number {
    /// Reads an expression; the error says what is wrong and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match parser::parse(text)? {
            (node, Kind::Int | Kind::Double) => Ok(Self(node)),
            (_, Kind::Bool) => Err("must be a number, not true or false".to_owned()),
        }
    }

    /// `None` when it cannot be computed: an integer divided by 0 or out of range.
    pub(super) fn of(&self, usage: &Usage) -> Option<f64> {
        self.0.value(usage)?.double()
    }
}

impl Condition {
    /// Reads an expression; the error says what is wrong and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match parser::parse(text)? {
            (node, Kind::Bool) => Ok(Self(node)),
            (_, Kind::Int | Kind::Double) => Err("must be true or false, not a number".to_owned()),
        }
    }

    /// `None` when it cannot be computed.
    pub(super) fn of(&self, usage: &Usage) -> Option<bool> {
        self.0.value(usage)?.truth()
    }
}

/// Type of a node, known before anything is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Double,
    Bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Int(i64),
    Double(f64),
    Bool(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Prompt,
    Completion,
    Total,
    Cached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
}

#[derive(Debug)]
enum Node {
    Constant(Value),
    Field(Field),
    Has(Field),
    Not(Box<Node>),
    Negate(Box<Node>),
    ToInt(Box<Node>),
    ToDouble(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
}

impl Value {
    fn double(self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "CEL's conversion rounds, too")]
            Self::Int(value) => Some(value as f64),
            Self::Double(value) => Some(value),
            Self::Bool(_) => None,
        }
    }

    fn int(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value),
            #[allow(clippy::cast_possible_truncation, reason = "in range, and CEL cuts, too")]
            Self::Double(value) if value.abs() < 9.2e18 => Some(value as i64),
            Self::Double(_) | Self::Bool(_) => None,
        }
    }

    fn truth(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            Self::Int(_) | Self::Double(_) => None,
        }
    }
}

impl Field {
    fn of(self, usage: &Usage) -> f64 {
        let tokens = match self {
            Self::Prompt => usage.prompt,
            Self::Completion => usage.completion,
            Self::Total => usage.total,
            Self::Cached => usage.cached,
        };
        #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 tokens")]
        let tokens = tokens as f64;
        tokens
    }
}

impl Node {
    fn value(&self, usage: &Usage) -> Option<Value> {
        let truth = |node: &Self| node.value(usage)?.truth();
        Some(match self {
            Self::Constant(value) => *value,
            Self::Field(field) => Value::Double(field.of(usage)),
            // Engines that know no cache leave its details out; the counts are always there.
            Self::Has(field) => Value::Bool(*field != Field::Cached || usage.cached > 0),
            Self::Not(node) => Value::Bool(!truth(node)?),
            Self::Negate(node) => match node.value(usage)? {
                Value::Int(value) => Value::Int(value.checked_neg()?),
                value => Value::Double(-value.double()?),
            },
            Self::ToInt(node) => Value::Int(node.value(usage)?.int()?),
            Self::ToDouble(node) => Value::Double(node.value(usage)?.double()?),
            Self::Binary(Operator::And, left, right) => Value::Bool(truth(left)? && truth(right)?),
            Self::Binary(Operator::Or, left, right) => Value::Bool(truth(left)? || truth(right)?),
            Self::Binary(operator, left, right) => operator.apply(left.value(usage)?, right.value(usage)?)?,
            Self::Choose(condition, yes, no) => {
                let chosen = if truth(condition)? { yes } else { no };
                chosen.value(usage)?
            }
        })
    }
}

impl Operator {
    fn apply(self, left: Value, right: Value) -> Option<Value> {
        match (self, left, right) {
            (Self::Equal, Value::Bool(left), Value::Bool(right)) => Some(Value::Bool(left == right)),
            (Self::NotEqual, Value::Bool(left), Value::Bool(right)) => Some(Value::Bool(left != right)),
            (_, Value::Int(left), Value::Int(right)) => self.of_ints(left, right),
            _ => self.of_doubles(left.double()?, right.double()?),
        }
    }

    fn of_ints(self, left: i64, right: i64) -> Option<Value> {
        Some(match self {
            Self::Add => Value::Int(left.checked_add(right)?),
            Self::Subtract => Value::Int(left.checked_sub(right)?),
            Self::Multiply => Value::Int(left.checked_mul(right)?),
            Self::Divide => Value::Int(left.checked_div(right)?),
            Self::Modulo => Value::Int(left.checked_rem(right)?),
            _ => Value::Bool(self.holds(left.cmp(&right))?),
        })
    }

    fn of_doubles(self, left: f64, right: f64) -> Option<Value> {
        Some(match self {
            Self::Add => Value::Double(left + right),
            Self::Subtract => Value::Double(left - right),
            Self::Multiply => Value::Double(left * right),
            Self::Divide => Value::Double(left / right),
            _ => Value::Bool(self.holds(left.partial_cmp(&right)?)?),
        })
    }

    fn holds(self, order: std::cmp::Ordering) -> Option<bool> {
        Some(match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
