use crate::{ColumnType, EventSet, Recorded, Source, Value, WrongType};
use std::{fmt::Debug, hash::Hash};

/// A table that is a fold of events. Written with `#[derive(ReadModel)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a read model",
    note = "add #[derive(ReadModel)] and #[read_model(…)]"
)]
pub trait ReadModel: Sized + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// The type of the `#[key]` column, or a tuple of several.
    type Key: Clone + Debug + Ord + Hash + Send + Sync + 'static;
    /// The table.
    const TABLE: Table;
    /// The key of the row.
    fn row_key(&self) -> Self::Key;
    /// The cell of the n-th key column.
    fn key_value(key: &Self::Key, column: usize) -> Value<'_>;
    /// The cell of the n-th column.
    fn value(&self, column: usize) -> Value<'_>;
    /// The row of these cells, in the order of the table's columns.
    ///
    /// # Errors
    /// When a cell is of another type than its column.
    fn from_values(values: Vec<Value<'_>>) -> Result<Self, WrongType>;
    /// The sets of events it reads, and what it does with them.
    fn sources() -> Vec<Source<Self>>;
}

/// Everything that is known about the table of a read model: its definition, SQL, filters and
/// exports follow from it.
#[derive(Debug)]
pub struct Table {
    /// The read model's name, in snake case.
    pub name: &'static str,
    /// Raised when the columns or the fold change: a new build is made beside the live one.
    pub version: u32,
    /// What a row is.
    pub doc: &'static str,
    /// Whether rows of the same key merge column by column, or are replaced.
    pub additive: bool,
    /// Key columns first, then the others; both in the order in which they are declared.
    pub columns: &'static [ColumnDef],
}
/// Everything that is known about a column.
#[derive(Debug)]
pub struct ColumnDef {
    /// The field's name.
    pub name: &'static str,
    /// The field's doc comment.
    pub doc: &'static str,
    /// Its type in Postgres.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// The texts it can hold, when they are known.
    pub labels: &'static [&'static str],
    /// Whether queries may filter and sort by it; keys always may. A key and a column of a keyed
    /// read model get an index.
    pub filter: bool,
    /// In the table only, not in the API, the exports or the analysts' view.
    pub hidden: bool,
    /// How two rows of the same key become one in this column.
    pub merge: Merge,
}
/// How two rows of the same key become one, column by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Part of the key.
    Key,
    /// Not merged: a keyed read model replaces its rows.
    Replace,
    /// The sum; null takes no part.
    Sum,
    /// The smaller; null takes no part.
    Min,
    /// The greater; null takes no part.
    Max,
    /// The value of the row that is greater by these columns.
    Latest(&'static [&'static str]),
}
impl Table {
    /// The key columns.
    pub fn keys(&self) -> impl Iterator<Item = &'static ColumnDef> + use<> {
        self.columns.iter().filter(|c| c.merge == Merge::Key)
    }
    /// The other columns.
    pub fn rest(&self) -> impl Iterator<Item = &'static ColumnDef> + use<> {
        self.columns.iter().filter(|c| c.merge != Merge::Key)
    }
    /// The columns that readers see.
    pub fn shown(&self) -> impl Iterator<Item = &'static ColumnDef> + use<> {
        self.columns.iter().filter(|c| !c.hidden)
    }
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&'static ColumnDef> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// `R` lists `E` in `#[read_model(from(…))]`; made by the derive.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not read `{E}`",
    label = "add `{E}` to #[read_model(from(…))] of `{Self}`"
)]
pub trait Reads<E: EventSet> {}

/// A keyed read model: an event changes the one row that its key names. A row is fed by exactly
/// one stream, so the key follows from the stream's id alone; what several streams feed is
/// [`Contribute`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` lists `{E}` in #[read_model(from(…))], but does not fold it",
    label = "write `impl Fold<{E}> for {Self}`"
)]
pub trait Fold<E: EventSet>: ReadModel + Reads<E> {
    /// The row that a stream feeds; no two streams feed the same one.
    fn key(stream: &E::Id) -> Self::Key;
    /// The row after the event; `None` removes it.
    fn fold(row: Option<Self>, event: &Recorded<E>) -> Option<Self>;
}

/// A read model whose columns merge: made by the derive when its columns say how.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is keyed, not additive: none of its columns is marked #[sum], \
        #[min], #[max] or #[latest(by = …)]",
    label = "use Fold, or mark every column that is not a #[key]"
)]
pub trait Additive: ReadModel {
    /// Takes in another row of the same key. Commutative and associative.
    fn merge(&mut self, other: Self);
}

/// An additive read model: each event contributes rows, and rows of the same key are merged column
/// by column.
#[diagnostic::on_unimplemented(
    message = "`{Self}` lists `{E}` in #[read_model(from(…))], but takes nothing from it",
    label = "write `impl Contribute<{E}> for {Self}`"
)]
pub trait Contribute<E: EventSet>: Additive + Reads<E> {
    /// The rows that the event adds.
    fn contribute(event: &Recorded<E>) -> Vec<Self>;
}
