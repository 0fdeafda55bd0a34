//! The table of keys, and what their values may be.

use toml::Value;

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path in the file, such as `relay.batch_bytes`. One part may be `*`, for a name that
    /// the user chooses, such as `services.*.database_url`.
    pub path: &'static str,
    /// The environment variable that overrides it, or empty. With a `*` in the path there is one
    /// here too: `*_DATABASE_URL`; `CREDIT_NOTES_DATABASE_URL` then means `credit-notes`.
    pub env: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Whether the whole value is a secret. Passwords in URLs are masked in any case.
    pub secret: bool,
    /// What it means, with unit and default.
    pub doc: &'static str,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number, both ends included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of texts; in the environment and in flags parted by commas.
    List,
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// A TCP port.
    pub const PORT: Self = Self::Integer { min: 1, max: 65_535 };

    /// The rule, for people.
    #[must_use]
    pub fn rule(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number => "a number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::List => "a list of texts".to_owned(),
            Self::OneOf(values) => format!("one of {}", values.join(", ")),
        }
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::String(_)) | (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Integer { min, max }, Value::Integer(number)) => (min..=max).contains(number),
            (Self::Number, Value::Integer(_)) => true,
            (Self::Number, Value::Float(number)) => number.is_finite(),
            (Self::List, Value::Array(items)) => items.iter().all(Value::is_str),
            (Self::OneOf(values), Value::String(text)) => values.contains(&text.as_str()),
            (_, _) => false,
        }
    }
}

impl Key {
    /// A key that is not a secret.
    #[must_use]
    pub const fn new(path: &'static str, env: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { path, env, kind, secret: false, doc }
    }

    /// The same, as a secret.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) fn parts(&self) -> Vec<&'static str> {
        self.path.split('.').collect()
    }

    /// Whether `path` is this key, or for `below` a table on the way to it.
    fn is(&self, path: &[String], below: bool) -> bool {
        let parts = self.parts();
        (if below { path.len() < parts.len() } else { path.len() == parts.len() })
            && parts.iter().zip(path).all(|(part, name)| *part == "*" || part == name)
    }

    /// What stands for `*` when the environment variable `name` is this key's; empty without one.
    pub(super) fn env_wildcard(&self, name: &str) -> Option<String> {
        let Some((before, after)) = self.env.split_once('*') else {
            return (self.env == name).then(String::new);
        };
        let middle = name.strip_prefix(before)?.strip_suffix(after)?;
        (!middle.is_empty()).then(|| middle.to_ascii_lowercase().replace('_', "-"))
    }

    pub(super) fn path_with(&self, wildcard: &str) -> Vec<String> {
        let parts = self.parts().into_iter();
        parts.map(|part| if part == "*" { wildcard } else { part }.to_owned()).collect()
    }

    /// The value that `text` stands for, or the rule it breaks.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            Kind::Text | Kind::OneOf(_) => Some(Value::String(text.to_owned())),
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Number => text.parse().ok().map(Value::Float),
            Kind::Boolean => text.parse().ok().map(Value::Boolean),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
        };
        let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
        self.check(value)
    }

    /// The value again if it keeps the rule.
    pub(super) fn check(&self, value: Value) -> Result<Value, String> {
        if self.kind.fits(&value) {
            return Ok(value);
        }
        Err(format!("must be {}, is {}", self.kind.rule(), self.shown(&value)))
    }

    /// The value as text, masked.
    pub(super) fn shown(&self, value: &Value) -> String {
        if self.secret { "***".to_owned() } else { mask(&value.to_string()) }
    }

    /// Whether the value must not be readable by everyone.
    pub(super) fn is_confidential(&self, value: &Value) -> bool {
        let text = value.to_string();
        self.secret || mask(&text) != text
    }
}

/// The key at `path`.
pub(super) fn find<'a>(keys: &'a [Key], path: &[String]) -> Option<&'a Key> {
    keys.iter().find(|key| key.is(path, false))
}

/// Whether `path` is a table that holds keys.
pub(super) fn is_table(keys: &[Key], path: &[String]) -> bool {
    keys.iter().any(|key| key.is(path, true))
}

/// What to say of a key that is not in the table.
pub(super) fn unknown(keys: &[Key], path: &[String]) -> String {
    let path = path.join(".");
    let nearest = keys.iter().map(|key| (distance(&path, key.path), key.path)).min();
    match nearest {
        Some((far, near)) if far <= 3.max(path.len() / 3) => {
            format!("unknown key {path}; did you mean {near}?")
        }
        _ => {
            let all: Vec<_> = keys.iter().map(|key| key.path).collect();
            format!("unknown key {path}; known are {}", all.join(", "))
        }
    }
}

/// Replaces passwords in URLs: `postgres://shop:***@host/db`.
pub(super) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let end = after.find(['/', '?', '#', '"', ' ', ',']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => match user.split_once(':') {
                Some((name, _)) => masked.push_str(&format!("{name}:***@{host}")),
                None => masked.push_str(authority),
            },
            None => masked.push_str(authority),
        }
        rest = tail;
    }
    masked.push_str(rest);
    masked
}

/// How many single edits part two texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
