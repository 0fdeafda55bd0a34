//! Read models for tests: every column type with every merge, a keyed one, and changed ones.

use apache_avro::AvroSchema;
use foldstream_core::{
    Column, Contribute, Date, Event, Fold, Json, Money, ReadModel, Recorded, Timestamp, Uuid,
    events, stream_id,
};
use serde::{Deserialize, Serialize};

stream_id! {
    /// A note.
    pub(crate) struct NoteId, check = |_| Ok(());
}

/// A note was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "test.notes")]
pub(crate) struct NoteWritten {
    /// What it says.
    pub text: String,
}

/// A note was torn up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "test.notes")]
pub(crate) struct NoteTorn {
    /// How.
    pub how: String,
}

events! {
    /// What happens to notes.
    pub(crate) enum NoteEvent on "notes" of NoteId { NoteWritten, NoteTorn }
}

#[derive(Debug, Clone, Copy, PartialEq, Column)]
pub(crate) enum Mood {
    Glad,
    Sad,
}

/// A row per note, gone when the note is torn up.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "notes", version = 1, from(NoteEvent))]
pub(crate) struct NoteRow {
    /// The note.
    #[key]
    pub note_id: String,
    /// It's every text, one after another.
    #[filter]
    pub order: String,
    /// How often it was written on.
    pub times: i64,
    /// Words by length.
    pub words: Json<Vec<usize>>,
}
impl Fold<NoteEvent> for NoteRow {
    fn key(stream: &NoteId) -> String {
        stream.to_string()
    }
    fn fold(row: Option<Self>, event: &Recorded<NoteEvent>) -> Option<Self> {
        match &event.data {
            NoteEvent::NoteWritten(written) => {
                let mut row = row.unwrap_or_else(|| NoteRow {
                    note_id: event.id.to_string(),
                    order: String::new(),
                    times: 0,
                    words: Json(Vec::new()),
                });
                row.order.push_str(&written.text);
                row.times += 1;
                row.words.0.push(written.text.len());
                Some(row)
            }
            NoteEvent::NoteTorn(_) => None,
        }
    }
}

/// Every type in every mark.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "everything", version = 1, from(NoteEvent))]
pub(crate) struct Everything {
    /// Key of text.
    #[key]
    pub text_key: String,
    /// Key of a day.
    #[key]
    pub day_key: Date,
    /// Key of truth.
    #[key]
    pub bool_key: bool,
    /// Sum.
    #[sum]
    pub sum_4: i32,
    /// Sum.
    #[sum]
    pub sum_8: i64,
    /// Sum.
    #[sum]
    pub sum_money: Money,
    /// Sum or nothing.
    #[sum]
    pub sum_maybe: Option<Money>,
    /// Least.
    #[min]
    pub min_text: String,
    /// Least.
    #[min]
    pub min_maybe: Option<Timestamp>,
    /// Least.
    #[min]
    pub min_id: Uuid,
    /// Most.
    #[max]
    pub max_text: Option<String>,
    /// Most.
    #[max]
    pub max_date: Option<Date>,
    /// Most.
    #[max]
    #[filter]
    pub max_bool: bool,
    /// Latest by three.
    #[latest(by = (by_time, by_text, by_number))]
    pub latest: Option<String>,
    /// Latest by the same.
    #[latest(by = (by_time, by_text, by_number))]
    pub mood: Mood,
    /// Orders.
    #[hidden]
    pub by_time: Option<Timestamp>,
    /// Orders.
    #[hidden]
    pub by_text: Option<String>,
    /// Orders.
    #[hidden]
    pub by_number: i32,
    /// Latest by one that is a maximum.
    #[latest(by = last_at)]
    pub latest_money: Money,
    /// The last moment.
    #[max]
    pub last_at: Timestamp,
}
impl Contribute<NoteEvent> for Everything {
    fn contribute(_: &Recorded<NoteEvent>) -> Vec<Self> {
        Vec::new()
    }
}

pub(crate) mod changed {
    use super::{NoteEvent, NoteId};
    use foldstream_core::{Fold, ReadModel, Recorded};

    /// The same name and version, other columns.
    #[derive(Debug, Clone, PartialEq, ReadModel)]
    #[read_model(name = "notes", version = 1, from(NoteEvent))]
    pub(crate) struct OtherColumns {
        /// The note.
        #[key]
        pub note_id: String,
        /// Other than before.
        pub order: i64,
    }
    /// A higher version.
    #[derive(Debug, Clone, PartialEq, ReadModel)]
    #[read_model(name = "notes", version = 2, from(NoteEvent))]
    pub(crate) struct HigherVersion {
        /// The note.
        #[key]
        pub note_id: String,
        /// Other than before.
        pub order: i64,
    }
    impl Fold<NoteEvent> for OtherColumns {
        fn key(stream: &NoteId) -> String {
            stream.to_string()
        }
        fn fold(row: Option<Self>, _: &Recorded<NoteEvent>) -> Option<Self> {
            row
        }
    }
    impl Fold<NoteEvent> for HigherVersion {
        fn key(stream: &NoteId) -> String {
            stream.to_string()
        }
        fn fold(row: Option<Self>, _: &Recorded<NoteEvent>) -> Option<Self> {
            row
        }
    }
}
