//! Rows in memory, and the one face behind which read models of different row types stand in one
//! list.
use crate::{
    Additive, Contribute, Decoded, EventSet, Fold, ReadModel, Table, Topic, Value, WrongType,
};
use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

/// Rows of one read model by key: one batch of it live, the whole of it in a rebuild and in the
/// oracle.
/// `None` is a row that was removed.
pub type Held<R> = HashMap<<R as ReadModel>::Key, Option<R>>;

/// One set of events that a read model reads, and what it does with them.
pub struct Source<R: ReadModel> {
    /// Where the events come from.
    pub topic: Topic,
    /// The rows that must be loaded before `apply`.
    needs: fn(&Decoded, &mut BTreeSet<R::Key>),
    apply: fn(&Decoded, &mut Held<R>),
}
impl<R: ReadModel> Source<R> {
    /// Folds these events.
    pub fn fold<E: EventSet>() -> Self
    where
        R: Fold<E>,
    {
        Source {
            topic: Topic::of::<E>(),
            needs: |batch, keys| {
                keys.extend(batch.records::<E>().iter().map(|event| R::key(&event.id)));
            },
            apply: |batch, held| {
                for event in batch.records::<E>() {
                    let row = held.entry(R::key(&event.id)).or_default();
                    *row = R::fold(row.take(), event);
                }
            },
        }
    }
    /// Applies a batch; records of other topics change nothing.
    pub fn apply(&self, batch: &Decoded, held: &mut Held<R>) {
        (self.apply)(batch, held);
    }
    /// Takes contributions from these events.
    pub fn contribute<E: EventSet>() -> Self
    where
        R: Contribute<E>,
    {
        Source {
            topic: Topic::of::<E>(),
            needs: |_, _| {},
            apply: |batch, held| {
                for event in batch.records::<E>() {
                    R::contribute(event).into_iter().for_each(|row| merge_into(held, row));
                }
            },
        }
    }
}
fn merge_into<R: Additive>(held: &mut Held<R>, row: R) {
    match held.entry(row.row_key()).or_default() {
        Some(own) => own.merge(row),
        empty => *empty = Some(row),
    }
}

/// Cells by row and column: what is written to Postgres.
pub trait Cells: Sync {
    /// How many rows.
    fn rows(&self) -> usize;
    /// The cell of a row in a column.
    fn value(&self, row: usize, column: usize) -> Value<'_>;
}
impl<R: ReadModel> Cells for Vec<&R> {
    fn rows(&self) -> usize {
        self.len()
    }
    fn value(&self, row: usize, column: usize) -> Value<'_> {
        self[row].value(column)
    }
}
/// Keys of rows.
struct Keys<R: ReadModel>(Vec<R::Key>);
impl<R: ReadModel> Cells for Keys<R> {
    fn rows(&self) -> usize {
        self.0.len()
    }
    fn value(&self, row: usize, column: usize) -> Value<'_> {
        R::key_value(&self.0[row], column)
    }
}
/// What a batch comes to: rows to write and keys to delete, both in key order.
pub struct Changes<'a> {
    /// Whole rows; additive ones are merged into what is stored.
    pub write: Box<dyn Cells + Send + 'a>,
    /// Keys of rows that went away.
    pub delete: Box<dyn Cells + Send + 'a>,
}

/// A read model whose row type is no longer visible.
pub trait AnyReadModel: Send + Sync {
    /// Its table.
    fn table(&self) -> &'static Table;
    /// The topics it reads.
    fn topics(&self) -> Vec<Topic>;
    /// No rows yet.
    fn empty(&self) -> Box<dyn AnyRows>;
}
/// Its rows.
pub trait AnyRows: Send {
    /// The keys of the stored rows that a fold of these records must see.
    fn needs(&self, batches: &[Decoded]) -> Box<dyn Cells + Send>;
    /// Takes in a stored row, its cells in the order of the table's columns.
    ///
    /// # Errors
    /// When a cell is of another type than its column.
    fn load(&mut self, values: Vec<Value<'_>>) -> Result<(), WrongType>;
    /// Folds a batch. Panics where the fold does, such as on overflow: the caller catches it.
    fn apply(&mut self, batch: &Decoded);
    /// What the rows held now come to.
    fn changes(&self) -> Changes<'_>;
    /// How many rows are held.
    fn len(&self) -> usize;
    /// Whether none are.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Puts a read model behind that face.
pub fn read_model<R: ReadModel>() -> Arc<dyn AnyReadModel> {
    Arc::new(Model::<R>(PhantomData))
}
struct Model<R>(PhantomData<fn() -> R>);
impl<R: ReadModel> Model<R> {
    const TABLE: &'static Table = &R::TABLE;
}
impl<R: ReadModel> AnyReadModel for Model<R> {
    fn table(&self) -> &'static Table {
        Self::TABLE
    }
    fn topics(&self) -> Vec<Topic> {
        R::sources().iter().map(|source| source.topic).collect()
    }
    fn empty(&self) -> Box<dyn AnyRows> {
        Box::new(Rows::<R> { sources: R::sources(), held: Held::<R>::new() })
    }
}
struct Rows<R: ReadModel> {
    sources: Vec<Source<R>>,
    held: Held<R>,
}
impl<R: ReadModel> AnyRows for Rows<R> {
    fn needs(&self, batches: &[Decoded]) -> Box<dyn Cells + Send> {
        let mut keys = BTreeSet::new();
        for batch in batches {
            self.sources
                .iter()
                .filter(|s| s.topic.name == batch.topic)
                .for_each(|s| (s.needs)(batch, &mut keys));
        }
        Box::new(Keys::<R>(keys.into_iter().collect()))
    }
    fn load(&mut self, values: Vec<Value<'_>>) -> Result<(), WrongType> {
        let row = R::from_values(values)?;
        self.held.insert(row.row_key(), Some(row));
        Ok(())
    }
    fn apply(&mut self, batch: &Decoded) {
        self.sources
            .iter()
            .filter(|s| s.topic.name == batch.topic)
            .for_each(|s| (s.apply)(batch, &mut self.held));
    }
    fn len(&self) -> usize {
        self.held.len()
    }
    fn changes(&self) -> Changes<'_> {
        let mut held: Vec<_> = self.held.iter().collect();
        held.sort_unstable_by_key(|(key, _)| *key);
        let removed = held.iter().filter(|(_, row)| row.is_none()).map(|(key, _)| (*key).clone());
        Changes {
            delete: Box::new(Keys::<R>(removed.collect())),
            write: Box::new(held.iter().filter_map(|(_, row)| row.as_ref()).collect::<Vec<&R>>()),
        }
    }
}
