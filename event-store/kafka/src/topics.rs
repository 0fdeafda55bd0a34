//! Topics: created explicitly, checked, described.

use crate::KafkaError;
use crate::settings::{self, DEADLINE, MAX_MESSAGE_BYTES, Quiet, blocking};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::types::RDKafkaErrorCode as Code;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A topic that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The full name, such as `shop.invoices`.
    pub name: String,
    /// The number of partitions, fixed for life.
    pub partitions: i32,
}
impl TopicSpec {
    /// A topic of this name with so many partitions.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        TopicSpec { name: name.into(), partitions }
    }
}

/// What [`Cluster::ensure`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ensured {
    /// The topics that were missing.
    pub created: Vec<String>,
    /// Settings of existing topics that differ from those that Foldstream relies on: one sentence
    /// each, with the remedy.
    pub warnings: Vec<String>,
}

/// A broker as it presents itself to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Its advertised address, `host:port`: where clients must reach it.
    pub address: String,
}

/// One partition as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionDescription {
    /// From 0.
    pub partition: i32,
    /// The offset of the oldest record.
    pub low: i64,
    /// The offset that the next record gets.
    pub high: i64,
    /// How many copies there are.
    pub replicas: usize,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicDescription {
    /// The full name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
    /// Its settings.
    pub settings: BTreeMap<String, String>,
    /// Settings that differ from those that Foldstream relies on, as sentences.
    pub warnings: Vec<String>,
}

/// The settings of a topic that our guarantees rest on; `min.insync.replicas` is added to them.
const SETTINGS: [(&str, &str); 6] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("compression.type", "zstd"),
    // Records carry the time of their event, which may be long ago or, after a jump of a clock,
    // ahead: neither is a reason to refuse them.
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
];

/// A Kafka cluster, seen by its administrator. Cheap to clone; keeps a connection.
#[derive(Clone)]
pub struct Cluster {
    admin: Arc<AdminClient<Quiet>>,
    replication: Option<i32>,
}

impl Cluster {
    /// The cluster behind these bootstrap servers. Does not connect yet.
    ///
    /// # Errors
    /// When the client cannot be made of this configuration.
    pub fn new(bootstrap: &str) -> Result<Self, KafkaError> {
        let config = settings::client(bootstrap, "foldstream-admin");
        let admin = AdminClient::from_config_and_context(&config, Quiet)?;
        Ok(Cluster { admin: Arc::new(admin), replication: None })
    }

    /// Creates topics with so many copies, instead of 3 or as many as there are brokers.
    #[must_use]
    pub fn with_replication_factor(mut self, factor: i32) -> Self {
        self.replication = Some(factor);
        self
    }

    /// Creates the topics that are missing and checks the others. May run in several processes
    /// at once.
    ///
    /// # Errors
    /// Kafka is away or refuses, or a topic exists with another number of partitions.
    pub async fn ensure(&self, specs: &[TopicSpec]) -> Result<Ensured, KafkaError> {
        let brokers = self.brokers(DEADLINE).await?.len();
        let factor = self.replication.unwrap_or_else(|| i32::try_from(brokers).unwrap_or(1).min(3));
        let insync = if factor >= 3 { "2" } else { "1" };
        let mut ensured =
            Ensured { created: self.create(specs, factor, insync).await?, ..Default::default() };
        for spec in specs {
            let partitions = self.partitions(&spec.name).await?;
            if partitions != spec.partitions {
                let wanted = spec.partitions;
                return Err(KafkaError::Mismatch {
                    topic: spec.name.clone(),
                    reason: format!(
                        "has {partitions} partitions, not {wanted}; the number is fixed for life"
                    ),
                });
            }
        }
        let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
        for (name, settings) in self.settings(&names).await? {
            ensured.warnings.extend(warnings(&name, &settings));
        }
        Ok(ensured)
    }

    /// Describes these topics; the order is theirs.
    ///
    /// # Errors
    /// Kafka is away, or one of them does not exist.
    pub async fn describe(&self, names: &[&str]) -> Result<Vec<TopicDescription>, KafkaError> {
        let mut settings = self.settings(names).await?;
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            let settings = settings.remove(*name).unwrap_or_default();
            topics.push(TopicDescription {
                name: (*name).to_owned(),
                partitions: self.describe_partitions(name).await?,
                warnings: warnings(name, &settings),
                settings,
            });
        }
        Ok(topics)
    }

    /// The names of all topics that are not Kafka's own.
    ///
    /// # Errors
    /// Kafka is away.
    pub async fn names(&self) -> Result<Vec<String>, KafkaError> {
        let admin = self.admin.clone();
        blocking(move || {
            let metadata = admin.inner().fetch_metadata(None, DEADLINE)?;
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            Ok(names.filter(|name| !name.starts_with("__")).collect())
        })
        .await
    }

    /// The brokers, with the addresses that they tell clients to use.
    ///
    /// # Errors
    /// None answers within the deadline.
    pub async fn brokers(&self, deadline: Duration) -> Result<Vec<Broker>, KafkaError> {
        let admin = self.admin.clone();
        blocking(move || {
            // Asking for one topic costs the same however many there are.
            let metadata = admin.inner().fetch_metadata(Some("__consumer_offsets"), deadline)?;
            let broker = |b: &rdkafka::metadata::MetadataBroker| Broker {
                id: b.id(),
                address: format!("{}:{}", b.host(), b.port()),
            };
            Ok(metadata.brokers().iter().map(broker).collect())
        })
        .await
    }

    /// Whether a broker answers in time.
    ///
    /// # Errors
    /// None does.
    pub async fn check(&self, deadline: Duration) -> Result<(), KafkaError> {
        if self.brokers(deadline).await?.is_empty() {
            return Err(KafkaError::Unavailable("the cluster has no brokers".into()));
        }
        Ok(())
    }

    /// Deletes topics and waits until they are gone. A missing one is fine.
    ///
    /// # Errors
    /// Kafka is away or refuses.
    pub async fn delete(&self, names: &[&str]) -> Result<(), KafkaError> {
        for result in self.admin.delete_topics(names, &options()).await? {
            match result {
                Ok(_) | Err((_, Code::UnknownTopicOrPartition)) => {}
                Err((name, code)) => {
                    return Err(KafkaError::code(code, &format!("{name}: {code}")));
                }
            }
        }
        let deadline = Instant::now() + DEADLINE;
        for name in names {
            while self.partitions(name).await != Err(KafkaError::NoTopic((*name).to_owned())) {
                if Instant::now() > deadline {
                    return Err(KafkaError::Unavailable(format!("{name} is still being deleted")));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        specs: &[TopicSpec],
        factor: i32,
        insync: &str,
    ) -> Result<Vec<String>, KafkaError> {
        let mut missing = Vec::new();
        for spec in specs {
            match self.partitions(&spec.name).await {
                Ok(_) => {}
                Err(KafkaError::NoTopic(_)) => missing.push(spec),
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = MAX_MESSAGE_BYTES.to_string();
        let mut topics = Vec::with_capacity(missing.len());
        for spec in &missing {
            let replication = TopicReplication::Fixed(factor);
            let mut topic = NewTopic::new(&spec.name, spec.partitions, replication);
            topic.config.extend(SETTINGS);
            topics.push(topic.set("min.insync.replicas", insync).set("max.message.bytes", &bytes));
        }
        let mut created = Vec::new();
        for result in self.admin.create_topics(&topics, &options()).await? {
            match result {
                Ok(name) => created.push(name),
                // Another process was faster.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(KafkaError::code(code, &format!("{name}: {code}")));
                }
            }
        }
        let deadline = Instant::now() + DEADLINE;
        for spec in missing {
            while let Err(error) = self.partitions(&spec.name).await {
                if Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(created)
    }

    /// The number of partitions.
    async fn partitions(&self, name: &str) -> Result<i32, KafkaError> {
        let (admin, name) = (self.admin.clone(), name.to_owned());
        blocking(move || Ok(partitions(&admin, &name)?.len().try_into().unwrap_or(i32::MAX))).await
    }

    async fn describe_partitions(
        &self,
        name: &str,
    ) -> Result<Vec<PartitionDescription>, KafkaError> {
        let (admin, name) = (self.admin.clone(), name.to_owned());
        blocking(move || {
            let mut described = Vec::new();
            for (partition, replicas, in_sync) in partitions(&admin, &name)? {
                let marks = admin.inner().fetch_watermarks(&name, partition, DEADLINE);
                let (low, high) = marks.map_err(|e| KafkaError::about(&name, e))?;
                described.push(PartitionDescription { partition, low, high, replicas, in_sync });
            }
            described.sort_by_key(|p| p.partition);
            Ok(described)
        })
        .await
    }

    async fn settings(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, KafkaError> {
        let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let mut all = BTreeMap::new();
        let described = self.admin.describe_configs(&topics, &options()).await?;
        for (name, result) in names.iter().zip(described) {
            let resource = result.map_err(|code| KafkaError::code(code, name))?;
            let entries = resource.entries.into_iter();
            let settings = entries.filter_map(|e| e.value.map(|value| (e.name, value))).collect();
            all.insert((*name).to_owned(), settings);
        }
        Ok(all)
    }
}

/// Creates the topics that are missing and checks the others: [`Cluster::ensure`], once.
///
/// # Errors
/// As [`Cluster::ensure`].
pub async fn ensure(bootstrap: &str, specs: &[TopicSpec]) -> Result<Ensured, KafkaError> {
    Cluster::new(bootstrap)?.ensure(specs).await
}

/// Whether a broker answers in time: [`Cluster::check`], once. Who asks often keeps a [`Cluster`].
///
/// # Errors
/// None does.
pub async fn check(bootstrap: &str, deadline: Duration) -> Result<(), KafkaError> {
    Cluster::new(bootstrap)?.check(deadline).await
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}

/// Number, copies and copies in sync of each partition.
fn partitions(
    admin: &AdminClient<Quiet>,
    name: &str,
) -> Result<Vec<(i32, usize, usize)>, KafkaError> {
    let metadata = admin.inner().fetch_metadata(Some(name), DEADLINE);
    let metadata = metadata.map_err(|e| KafkaError::about(name, e))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let missing = || KafkaError::NoTopic(name.to_owned());
    let topic = topic.ok_or_else(missing)?;
    if let Some(error) = topic.error() {
        let code = Code::from(error);
        return Err(match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic => missing(),
            other => KafkaError::code(other, &format!("{name}: {other}")),
        });
    }
    if topic.partitions().is_empty() {
        return Err(missing());
    }
    let counts =
        |p: &rdkafka::metadata::MetadataPartition| (p.id(), p.replicas().len(), p.isr().len());
    Ok(topic.partitions().iter().map(counts).collect())
}

fn warnings(name: &str, settings: &BTreeMap<String, String>) -> Vec<String> {
    let differs = |(key, wanted): (&str, &str)| {
        let value = settings.get(key)?;
        let fine = value == wanted || (key == "compression.type" && value == "producer");
        (!fine).then(|| {
            format!(
                "topic {name} has {key}={value}; set it to {wanted}: kafka-configs.sh --alter \
                 --entity-type topics --entity-name {name} --add-config {key}={wanted}"
            )
        })
    };
    SETTINGS.into_iter().filter_map(differs).collect()
}
