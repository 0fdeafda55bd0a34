//! Two versions of an event, each read by the other's code. Both stand in one process; in life
//! they are two releases.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

use foldstream_core::{EventSet, Money, Uuid, WriterSchema, stream_id};

stream_id! {
    /// An order.
    pub struct OrderId, check = |_| Ok(());
}

/// The first release.
mod v1 {
    use super::OrderId;
    use apache_avro::AvroSchema;
    use foldstream_core::{Event, Money, Timestamp, Uuid, events};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, AvroSchema)]
    #[avro(namespace = "test")]
    pub enum Channel {
        #[default]
        Other,
        Shop,
        Fax,
    }

    /// One line.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AvroSchema)]
    #[avro(namespace = "test")]
    pub struct Line {
        /// What.
        pub item: String,
        /// How many.
        pub units: i32,
        /// Price of one.
        pub price: Money,
    }

    /// An order was placed.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
    #[avro(namespace = "test.orders")]
    pub struct OrderPlaced {
        /// When.
        pub at: Timestamp,
        /// Which basket it was.
        pub basket: Uuid,
        /// First and last name.
        #[avro(default = r#""""#)]
        pub buyer: String,
        /// The country.
        pub country: String,
        /// How many items.
        pub items: i32,
        /// Share of the price that was given up.
        pub discount: f32,
        /// Where it came from.
        pub channel: Channel,
        /// The same once more.
        pub earlier: Option<Channel>,
        /// What.
        pub lines: Vec<Line>,
    }

    events! {
        /// What happened.
        pub enum OrderEvent on "orders" of OrderId { OrderPlaced }
    }
}

/// The second release.
mod v2 {
    use super::OrderId;
    use apache_avro::AvroSchema;
    use foldstream_core::{Event, Money, Timestamp, Undecodable, Uuid, Written, events};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, AvroSchema)]
    #[avro(namespace = "test")]
    pub enum Channel {
        #[default]
        Other,
        Shop,
        Web,
    }

    /// One line.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AvroSchema)]
    #[avro(namespace = "test")]
    pub struct Line {
        /// What.
        #[serde(alias = "item")]
        pub sku: String,
        /// How many.
        pub units: i64,
        /// Price of one.
        pub price: Money,
        /// Tax on all of them.
        #[avro(default = r#""\u0000""#)]
        pub tax: Money,
    }

    /// An order was placed.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
    #[avro(namespace = "test.orders")]
    #[event(upcast = split_buyer)]
    pub struct OrderPlaced {
        /// First name; was a part of `buyer`.
        #[avro(default = r#""""#)]
        pub first_name: String,
        /// Last name; was a part of `buyer`.
        #[avro(default = r#""""#)]
        pub last_name: String,
        /// When.
        pub at: Timestamp,
        /// Which basket it was.
        pub basket: Uuid,
        /// What the postage costs; was free.
        #[avro(default = r#""\u0000""#)]
        pub postage: Money,
        /// What it was called on paper.
        pub paper: Option<Uuid>,
        /// When it was paid.
        pub paid_at: Option<Timestamp>,
        /// The region.
        #[serde(alias = "country")]
        pub region: String,
        /// How many items.
        pub items: i64,
        /// Share of the price that was given up.
        pub discount: f64,
        /// Where it came from.
        pub channel: Channel,
        /// The same once more.
        pub earlier: Option<Channel>,
        /// What.
        pub lines: Vec<Line>,
        /// What the buyer said.
        pub note: Option<String>,
        /// Days until it must be there.
        #[avro(default = "14")]
        pub days: i64,
    }

    fn split_buyer(written: &mut Written<'_>) -> Result<(), Undecodable> {
        let Some(buyer) = written.take::<String>("buyer")? else { return Ok(()) };
        let Some((first, last)) = buyer.split_once(' ') else {
            return Err(written.refuse(format!("a buyer of one name: {buyer:?}")));
        };
        written.put("first_name", first)?;
        // A value of each kind that the library alone would not take.
        written.put("postage", Money::ZERO)?;
        let basket: Option<Uuid> = written.take("basket")?;
        let at: Option<Timestamp> = written.take("at")?;
        let (Some(basket), Some(at)) = (basket, at) else {
            return Err(written.refuse("it had neither basket nor time"));
        };
        written.put("basket", basket)?;
        written.put("paper", Some(basket))?;
        written.put("at", at)?;
        written.put("paid_at", at)?;
        written.put("last_name", last)
    }

    events! {
        /// What happened.
        pub enum OrderEvent on "orders" of OrderId { OrderPlaced }
    }
}

fn writer<E: EventSet>() -> WriterSchema {
    WriterSchema::parse(1, &E::schemas()[0].json.to_string()).unwrap()
}
fn money(text: &str) -> Money {
    text.parse().unwrap()
}
fn old(price: &str) -> v1::OrderPlaced {
    v1::OrderPlaced {
        at: "2010-12-01T08:26:00Z".parse().unwrap(),
        basket: Uuid::from_u128(7),
        buyer: "Ada Lovelace".into(),
        country: "United Kingdom".into(),
        items: 6,
        discount: 0.25,
        channel: v1::Channel::Shop,
        earlier: Some(v1::Channel::Fax),
        lines: vec![v1::Line { item: "85123A".into(), units: 6, price: money(price) }],
    }
}
fn new(price: &str) -> v2::OrderPlaced {
    v2::OrderPlaced {
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        at: "2010-12-01T08:26:00Z".parse().unwrap(),
        basket: Uuid::from_u128(7),
        postage: money("0"),
        paper: Some(Uuid::from_u128(7)),
        paid_at: Some("2010-12-01T08:26:00Z".parse().unwrap()),
        region: "United Kingdom".into(),
        items: 6,
        discount: 0.25,
        channel: v2::Channel::Shop,
        earlier: Some(v2::Channel::Other),
        lines: vec![v2::Line {
            sku: "85123A".into(),
            units: 6,
            price: money(price),
            tax: money("0"),
        }],
        note: None,
        days: 14,
    }
}

#[test]
fn new_code_reads_what_old_code_wrote() {
    // Amounts of every width: the library alone refuses the short ones between two schemas.
    for price in ["0", "0.0001", "2.55", "-2.55", "-0.0128", "999999999999999999999999.9999"] {
        let datum = v1::OrderEvent::from(old(price)).encode().unwrap();
        let read = v2::OrderEvent::decode(&writer::<v1::OrderEvent>(), &datum);
        // A default, an alias, wider numbers, a symbol that is gone, an optional field that is
        // new, and a name in two halves.
        assert_eq!(read, Ok(new(price).into()), "{price}");
    }
}

#[test]
fn old_code_reads_what_new_code_writes() {
    let mut wrote = new("2.55");
    wrote.note = Some("ring twice".into());
    wrote.channel = v2::Channel::Web;
    wrote.lines[0].tax = money("0.51");
    let datum = v2::OrderEvent::from(wrote).encode().unwrap();
    let read = v1::OrderEvent::decode(&writer::<v2::OrderEvent>(), &datum);
    let expected = v1::OrderPlaced {
        // It knows neither half of the name, and has a default.
        buyer: String::new(),
        channel: v1::Channel::Other,
        earlier: Some(v1::Channel::Other),
        ..old("2.55")
    };
    assert_eq!(read, Ok(expected.into()));
}

#[test]
fn old_code_refuses_a_number_that_is_too_wide_for_it() {
    let wrote = v2::OrderPlaced { items: 1 << 40, ..new("1") };
    let datum = v2::OrderEvent::from(wrote).encode().unwrap();
    let refused = v1::OrderEvent::decode(&writer::<v2::OrderEvent>(), &datum).unwrap_err();
    assert_eq!(refused.name, "OrderPlaced");
}

#[test]
fn the_same_schema_is_read_by_both_codes_one_after_the_other() {
    // A process remembers how its code reads a schema; another code must not get that answer.
    let (one, two) = (writer::<v1::OrderEvent>(), writer::<v2::OrderEvent>());
    for _ in 0..2 {
        let datum = v1::OrderEvent::from(old("3")).encode().unwrap();
        assert_eq!(v1::OrderEvent::decode(&one, &datum), Ok(old("3").into()));
        assert_eq!(v2::OrderEvent::decode(&one, &datum), Ok(new("3").into()));
        let datum = v2::OrderEvent::from(new("3")).encode().unwrap();
        assert_eq!(v2::OrderEvent::decode(&two, &datum), Ok(new("3").into()));
        assert!(v1::OrderEvent::decode(&two, &datum).is_ok());
    }
}

#[test]
fn an_upcaster_may_refuse() {
    let wrote = v1::OrderPlaced { buyer: "Ada".into(), ..old("1") };
    let datum = v1::OrderEvent::from(wrote).encode().unwrap();
    let refused = v2::OrderEvent::decode(&writer::<v1::OrderEvent>(), &datum).unwrap_err();
    assert_eq!(refused.to_string(), "OrderPlaced: a buyer of one name: \"Ada\"");
}

#[test]
fn other_docs_and_defaults_are_no_other_version() {
    // Bytes are read the straight way, without the upcaster.
    let text = v2::OrderEvent::schemas()[0].json.to_string().replace("What.", "What was sold.");
    let writer = WriterSchema::parse(1, &text).unwrap();
    let datum = v2::OrderEvent::from(new("1")).encode().unwrap();
    assert_eq!(v2::OrderEvent::decode(&writer, &datum), Ok(new("1").into()));
}

#[test]
fn what_can_never_be_read_says_why() {
    let refused = |from: &str, to: &str| {
        let text = v1::OrderEvent::schemas()[0].json.to_string();
        assert!(text.contains(from), "{text}");
        let writer = WriterSchema::parse(1, &text.replacen(from, to, 1)).unwrap();
        let datum = v1::OrderEvent::from(old("1")).encode().unwrap();
        v1::OrderEvent::decode(&writer, &datum).unwrap_err().to_string()
    };
    let scale = refused(r#""scale":4"#, r#""scale":2"#);
    assert!(scale.contains("field `lines`: field `price`: a decimal of scale 2"), "{scale}");
    let gone = refused(r#""name":"country""#, r#""name":"land""#);
    assert!(gone.contains("country"), "{gone}");
}
