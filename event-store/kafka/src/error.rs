use rdkafka::error::{KafkaError as Client, RDKafkaErrorCode as Code};

/// What can go wrong between us and Kafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// No broker answers, or not in time. Worth another try.
    #[error("Kafka does not answer: {0}")]
    Unavailable(String),
    /// The topic, or that partition of it, does not exist.
    #[error("topic {0} does not exist")]
    NoTopic(String),
    /// The broker answers and refuses.
    #[error("Kafka refuses: {0}")]
    Refused(String),
    /// An option is not one that the client accepts.
    #[error("bad Kafka configuration: {0}")]
    Configuration(String),
    /// The topic is not as it has to be.
    #[error("topic {topic}: {reason}")]
    Mismatch {
        /// Which topic.
        topic: String,
        /// What differs.
        reason: String,
    },
}

impl KafkaError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            KafkaError::Unavailable(_) | KafkaError::NoTopic(_) => true,
            KafkaError::Refused(_) | KafkaError::Configuration(_) | KafkaError::Mismatch { .. } => {
                false
            }
        }
    }

    /// The client's error, about that topic.
    pub(crate) fn about(topic: &str, error: Client) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                KafkaError::NoTopic(topic.to_owned())
            }
            Some(code) => Self::code(code, &error.to_string()),
            None => Self::from(error),
        }
    }

    pub(crate) fn code(code: Code, text: &str) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "librdkafka knows some 200 codes")]
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                KafkaError::NoTopic(text.to_owned())
            }
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::PolicyViolation
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidRequest
            | Code::UnsupportedVersion => KafkaError::Refused(text.to_owned()),
            _ => KafkaError::Unavailable(text.to_owned()),
        }
    }
}

impl From<Client> for KafkaError {
    fn from(error: Client) -> Self {
        let text = error.to_string();
        match error.rdkafka_error_code() {
            Some(code) => Self::code(code, &text),
            None => match error {
                Client::ClientConfig(..) | Client::ClientCreation(_) => {
                    KafkaError::Configuration(text)
                }
                other => KafkaError::Unavailable(other.to_string()),
            },
        }
    }
}
