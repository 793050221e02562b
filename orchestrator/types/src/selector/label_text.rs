//! The text form of label selectors.
//!
//! ```text
//! selector    = "" | requirement { "," requirement }
//! requirement = [ "!" ] key | key ( "=" | "==" | "!=" ) [ value ] | key ( "in" | "notin" ) "(" [ value ] { "," [ value ] } ")"
//!             | key ( ">" | "<" ) number
//! ```

use std::collections::BTreeSet;
use std::fmt;

use super::SelectorError;
use super::label::{Operator, Requirement};

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    match parser.peek() {
        Token::End => return Ok(requirements),
        Token::Word(_) | Token::Not => {}
        found => return Err(expected(found, "!, identifier, or 'end of string'")),
    }
    loop {
        requirements.push(
            parser.requirement().map_err(|error| {
                SelectorError(format!("unable to parse requirement: {}", error.0))
            })?,
        );
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => match parser.peek() {
                Token::Word(_) | Token::Not => {}
                found => return Err(expected(found, "identifier after ','")),
            },
            found => return Err(expected(&found, "',' or 'end of string'")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A key, a value, or one of the words `in` and `notin`.
    Word(String),
    Comma,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    Open,
    Close,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word(word) => word,
            Self::Comma => ",",
            Self::Not => "!",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::Open => "(",
            Self::Close => ")",
            Self::End => "",
        })
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            '=' => (Token::Equal, if rest.starts_with("==") { 2 } else { 1 }),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || ",()<>=!".contains(c))
                    .unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    /// Ends with [`Token::End`].
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (absent, key) = match self.next() {
            Token::Word(key) => (false, key),
            Token::Not => match self.next() {
                Token::Word(key) => (true, key),
                found => return Err(expected(&found, "identifier")),
            },
            found => return Err(expected(&found, "!, identifier, or 'end of string'")),
        };
        if absent {
            return Requirement::new(&key, Operator::DoesNotExist);
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists);
        }
        let operator = match self.next() {
            Token::Equal => Operator::In(BTreeSet::from([self.value()?])),
            Token::NotEqual => Operator::NotIn(BTreeSet::from([self.value()?])),
            Token::Greater => Operator::GreaterThan(self.number()?),
            Token::Less => Operator::LessThan(self.number()?),
            Token::Word(word) if word == "in" => Operator::In(self.values()?),
            Token::Word(word) if word == "notin" => Operator::NotIn(self.values()?),
            found => return Err(expected(&found, "in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(&key, operator)
    }

    /// One value, which may be empty.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(String::new()),
            _ => match self.next() {
                Token::Word(value) => Ok(value),
                found => Err(expected(&found, "identifier")),
            },
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let value = self.value()?;
        value.parse().map_err(|_| {
            SelectorError(format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
        })
    }

    /// `(a,b,)`: an empty place between commas is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let found = self.next();
        if found != Token::Open {
            return Err(expected(&found, "'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Comma | Token::Close => String::new(),
                _ => match self.next() {
                    Token::Word(value) => value,
                    found => return Err(expected(&found, "',', ')' or identifier")),
                },
            };
            values.insert(value);
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                found => return Err(expected(&found, "',' or ')'")),
            }
        }
    }
}

fn expected(found: &Token, wanted: &str) -> SelectorError {
    SelectorError(format!("found '{found}', expected: {wanted}"))
}
