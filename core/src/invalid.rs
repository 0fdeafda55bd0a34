/// Why a text or a number from outside is not a value of a type: a rule's code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    /// The rule, in kebab case, such as `too-long`; stable.
    pub code: &'static str,
    /// The rule in words for a person.
    pub detail: String,
}

impl Invalid {
    /// An `Invalid` of this rule.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Invalid { code, detail: detail.into() }
    }
}
