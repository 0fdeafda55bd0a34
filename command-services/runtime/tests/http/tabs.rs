//! An aggregate for tests: the tab of a guest.
#![allow(unreachable_pub, reason = "the macros of an aggregate want public types")]

use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, At, Decision, Event, Invalid, Refusal, Rejection, Uuid, commands, emit, events,
    nothing, stream_id,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

stream_id! {
    /// A tab: any id that does not begin with `X`.
    pub struct TabId, check = check_tab_id;
}

fn check_tab_id(id: &str) -> Result<(), Invalid> {
    let detail = "the id of a tab does not begin with \"X\"";
    if id.starts_with('X') { Err(Invalid::new("bad-tab-id", detail)) } else { Ok(()) }
}

/// A guest sat down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.guest_tabs")]
pub struct TabOpened {
    /// Who pays.
    pub guest: String,
    /// Up to how much.
    pub limit: i64,
}
/// Something was brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.guest_tabs")]
pub struct Ordered {
    /// What.
    pub item: String,
    /// How many.
    pub quantity: i64,
}
/// It was paid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.guest_tabs")]
pub struct TabClosed {
    /// How much on top.
    pub tip: i64,
}
events! {
    /// What happened to one tab.
    pub enum TabEvent on "guest-tabs" of TabId { TabOpened, Ordered, TabClosed }
}

/// Opens a tab; the same again changes nothing.
///
/// More is told here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenTab(pub TabOpened);
/// Orders a round: one event for each item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRound {
    /// What; each once.
    pub items: Vec<String>,
}
/// Closes the tab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloseTab(pub TabClosed);
commands! {
    /// What one tab can be asked.
    pub enum TabCommand for "guest-tabs" of TabId as "tab_id" {
        OpenTab creates, OrderRound, CloseTab needs version
    }
}

/// A tab.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Tab {
    #[default]
    Absent,
    Open {
        opened: TabOpened,
        items: i64,
    },
    Closed,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum No {
    #[error("a tab with this id and other content exists")]
    Exists,
    #[error("the tab is not open")]
    NotOpen,
    #[error("a limit is not negative")]
    Limit,
    #[error("an item has a name")]
    Item(usize),
}
impl Rejection for No {
    fn refusal(&self) -> Refusal {
        match self {
            No::Exists => Refusal::Conflict("tab-exists"),
            No::NotOpen => Refusal::Conflict("tab-not-open"),
            No::Limit => Refusal::Invalid("limit-out-of-range"),
            No::Item(_) => Refusal::Invalid("no-name"),
        }
    }
    fn pointer(&self) -> Option<String> {
        match self {
            No::Exists | No::NotOpen => None,
            No::Limit => Some("/limit".into()),
            No::Item(at) => Some(format!("/items/{at}")),
        }
    }
}

impl Aggregate for Tab {
    type Command = TabCommand;
    type Event = TabEvent;
    type Rejection = No;

    fn decide(&self, command: TabCommand, _: &At) -> Decision<Self> {
        match (self, command) {
            (_, TabCommand::OpenTab(OpenTab(tab))) if tab.limit < 0 => Err(No::Limit),
            (Tab::Absent, TabCommand::OpenTab(OpenTab(tab))) => Ok(emit(tab)),
            (Tab::Open { opened, .. }, TabCommand::OpenTab(OpenTab(tab))) if *opened == tab => {
                Ok(nothing())
            }
            (Tab::Open { .. } | Tab::Closed, TabCommand::OpenTab(_)) => Err(No::Exists),
            (Tab::Open { .. }, TabCommand::OrderRound(OrderRound { items })) => {
                if let Some(at) = items.iter().position(String::is_empty) {
                    return Err(No::Item(at));
                }
                let ordered = |item| Ordered { item, quantity: 1 };
                let all = items.into_iter().map(ordered);
                Ok(all.fold(nothing(), |events, ordered| events.and(ordered)))
            }
            (Tab::Open { .. }, TabCommand::CloseTab(CloseTab(closed))) => Ok(emit(closed)),
            (Tab::Absent | Tab::Closed, TabCommand::OrderRound(_) | TabCommand::CloseTab(_)) => {
                Err(No::NotOpen)
            }
        }
    }
    fn evolve(self, event: &TabEvent) -> Self {
        match (self, event) {
            (_, TabEvent::TabOpened(opened)) => Tab::Open { opened: opened.clone(), items: 0 },
            (Tab::Open { opened, items }, TabEvent::Ordered(ordered)) => {
                Tab::Open { opened, items: items + ordered.quantity }
            }
            (other @ (Tab::Absent | Tab::Closed), TabEvent::Ordered(_)) => other,
            (_, TabEvent::TabClosed(_)) => Tab::Closed,
        }
    }
    fn new_id(uuid: Uuid) -> String {
        format!("T{uuid}")
    }
}
