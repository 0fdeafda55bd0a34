//! The read models of the shop, one file each. Pure: an event goes in, rows come out. Doc comments
//! are what analysts read beside tables and columns.

pub mod invoices;
pub mod sales_by_customer;
pub mod sales_by_day;
pub mod sales_by_product;

use foldstream_core::{AnyReadModel, read_model};
use std::sync::Arc;

/// Every read model of the shop.
pub fn all() -> Vec<Arc<dyn AnyReadModel>> {
    vec![
        read_model::<invoices::InvoiceRow>(),
        read_model::<sales_by_day::SalesByDay>(),
        read_model::<sales_by_product::SalesByProduct>(),
        read_model::<sales_by_customer::SalesByCustomer>(),
    ]
}
