//! Derives of Foldstream. Each mistake is one error at its place; all are reported at once.

mod read_model;
mod simple;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// A fact: takes the name and the documentation from the struct. A doc comment is required.
/// `#[event(upcast = a_function)]` names the function that brings what other versions of the code
/// wrote to the fields of this one: `fn(&mut Written<'_>) -> Result<(), Undecodable>`.
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    spell_out(simple::event(&parse_macro_input!(input as DeriveInput)))
}

/// A column type: a newtype (as its inner type) or an enum without fields (as text).
#[proc_macro_derive(Column)]
pub fn column(input: TokenStream) -> TokenStream {
    spell_out(simple::column(&parse_macro_input!(input as DeriveInput)))
}

/// A read model: `#[read_model(name = "…", version = 1, from(SomeEvent))]` on the struct;
/// `#[key]`, `#[filter]`, `#[hidden]`, `#[sum]`, `#[min]`, `#[max]`, `#[latest(by = …)]` on its
/// columns. Doc comments are required: they become the comments of table and columns.
#[proc_macro_derive(ReadModel, attributes(read_model, key, filter, hidden, sum, min, max, latest))]
pub fn read_model(input: TokenStream) -> TokenStream {
    spell_out(read_model::derive(&parse_macro_input!(input as DeriveInput)))
}

fn spell_out(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(|error| error.to_compile_error()).into()
}
