use foldstream_core::Table;

/// Where one build of a read model lies. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The read model's table.
    pub table: &'static Table,
    /// Counts up with each rebuild, from 1.
    pub build: i32,
}

impl Place {
    /// The place of this build.
    pub fn new(table: &'static Table, build: i32) -> Self {
        Place { table, build }
    }
    /// `rm_orders_b3`
    pub fn schema(&self) -> String {
        format!("rm_{}_b{}", self.table.name, self.build)
    }
    /// `"rm_orders_b3"."orders"`
    pub fn qualified(&self) -> String {
        format!("{}.{}", quoted(&self.schema()), quoted(self.table.name))
    }
}

/// An identifier in double quotes: columns may be named like words of SQL.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A text as a literal of SQL, where no parameter can stand.
pub(crate) fn literal(text: &str) -> String {
    // `E''` keeps the meaning of a backslash whatever standard_conforming_strings says.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
