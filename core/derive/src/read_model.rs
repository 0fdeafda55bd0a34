//! `#[derive(ReadModel)]`.

use crate::simple::doc;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::Parse as _;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Fields, Ident, Result, Type, spanned::Spanned,
};

/// `#[read_model(name = "…", version = 1, from(A, B))]`
struct Declared {
    name: String,
    version: u32,
    from: Vec<Type>,
}
enum Merge {
    Key,
    Replace,
    Sum,
    Min,
    Max,
    Latest(Vec<Ident>),
}
struct Column<'a> {
    name: &'a Ident,
    ty: &'a Type,
    doc: String,
    merge: Merge,
    filter: bool,
    hidden: bool,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "a read model is a struct: its fields are the columns of the table",
        ));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(
            &input.ident,
            "a read model needs named fields: they are the columns of the table",
        ));
    };
    let declared = declared(input)?;
    let mut columns = fields.named.iter().map(column).collect::<Result<Vec<_>>>()?;
    let additive = columns.iter().any(|c| !matches!(c.merge, Merge::Key | Merge::Replace));
    let mut errors = mark_by_columns(&mut columns);
    errors.extend(check(input, &columns, additive));
    if let Some(all) = errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    }) {
        return Err(all);
    }
    columns.sort_by_key(|c| !matches!(c.merge, Merge::Key)); // stable: keys first
    Ok(spell_out(input, &declared, &columns, additive))
}

fn declared(input: &DeriveInput) -> Result<Declared> {
    let usage =
        "a read model needs #[read_model(name = \"table_name\", version = 1, from(SomeEvent))]";
    let attribute = input.attrs.iter().find(|a| a.path().is_ident("read_model"));
    let attribute = attribute.ok_or_else(|| Error::new_spanned(&input.ident, usage))?;
    let (mut name, mut version, mut from) = (None, None, Vec::new());
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("name") {
            name = Some(meta.value()?.parse::<syn::LitStr>()?.value());
        } else if meta.path.is_ident("version") {
            version = Some(meta.value()?.parse::<syn::LitInt>()?.base10_parse()?);
        } else if meta.path.is_ident("from") {
            let list;
            syn::parenthesized!(list in meta.input);
            from = list.parse_terminated(Type::parse, syn::Token![,])?.into_iter().collect();
        } else {
            return Err(meta.error(usage));
        }
        Ok(())
    })?;
    match (name, version) {
        (Some(name), Some(version)) if !from.is_empty() => Ok(Declared { name, version, from }),
        _ => Err(Error::new_spanned(attribute, usage)),
    }
}

fn column(field: &syn::Field) -> Result<Column<'_>> {
    let name = field.ident.as_ref().expect("named field");
    let mut column = Column {
        name,
        ty: &field.ty,
        doc: doc(&field.attrs),
        merge: Merge::Replace,
        filter: false,
        hidden: false,
    };
    for attribute in &field.attrs {
        let merge = match attribute.path().get_ident().map(Ident::to_string).as_deref() {
            Some("key") => Merge::Key,
            Some("sum") => Merge::Sum,
            Some("min") => Merge::Min,
            Some("max") => Merge::Max,
            Some("latest") => Merge::Latest(by(attribute)?),
            Some("filter") => {
                column.filter = true;
                continue;
            }
            Some("hidden") => {
                column.hidden = true;
                continue;
            }
            _ => continue,
        };
        if !matches!(column.merge, Merge::Replace) {
            return Err(Error::new_spanned(
                attribute,
                "a column is either #[key] or merged in one way",
            ));
        }
        column.merge = merge;
    }
    Ok(column)
}

/// `#[latest(by = a)]` or `#[latest(by = (a, b))]`
fn by(attribute: &Attribute) -> Result<Vec<Ident>> {
    let usage = "write #[latest(by = column)] or #[latest(by = (column, column))]";
    let mut columns = Vec::new();
    attribute.parse_nested_meta(|meta| {
        if !meta.path.is_ident("by") {
            return Err(meta.error(usage));
        }
        let expressions = match meta.value()?.parse::<Expr>()? {
            Expr::Tuple(tuple) => tuple.elems.into_iter().collect(),
            single => vec![single],
        };
        for expression in expressions {
            match expression {
                Expr::Path(path) if path.path.get_ident().is_some() => {
                    columns.extend(path.path.get_ident().cloned())
                }
                other => return Err(Error::new_spanned(other, usage)),
            }
        }
        Ok(())
    })?;
    if columns.is_empty() { Err(Error::new_spanned(attribute, usage)) } else { Ok(columns) }
}

/// The columns named in a `by` go with it: they too are the ones of the latest row.
fn mark_by_columns(columns: &mut [Column<'_>]) -> Vec<Error> {
    let mut errors = Vec::new();
    let lists: Vec<Vec<Ident>> = columns
        .iter()
        .filter_map(|c| match &c.merge {
            Merge::Latest(by) => Some(by.clone()),
            _ => None,
        })
        .collect();
    for by in &lists {
        for (place, name) in by.iter().enumerate() {
            let Some(column) = columns.iter_mut().find(|c| c.name == name) else {
                errors.push(Error::new(name.span(), format!("there is no column `{name}`")));
                continue;
            };
            match &column.merge {
                Merge::Replace => column.merge = Merge::Latest(by.clone()),
                Merge::Latest(other) if other == by => {}
                Merge::Max if place == 0 => {} // the same thing
                _ => {
                    let text = format!(
                        "`{name}` belongs to this `by`; it can have no other merge, nor another \
                         `by` (only the first may be #[max])"
                    );
                    errors.push(Error::new(name.span(), text));
                }
            }
        }
    }
    errors
}

fn check(input: &DeriveInput, columns: &[Column<'_>], additive: bool) -> Vec<Error> {
    let mut errors = Vec::new();
    if !columns.iter().any(|c| matches!(c.merge, Merge::Key)) {
        errors.push(Error::new_spanned(
            &input.ident,
            "a read model needs a key: mark one column or more with #[key]",
        ));
    }
    if doc(&input.attrs).is_empty() {
        errors.push(Error::new_spanned(
            &input.ident,
            "a read model needs a doc comment: analysts see it as the comment of the table",
        ));
    }
    for column in columns {
        if column.doc.is_empty() && !column.hidden {
            errors.push(Error::new_spanned(
                column.name,
                format!(
                    "`{}` needs a doc comment: analysts see it as the comment of the column",
                    column.name
                ),
            ));
        }
        if additive && matches!(column.merge, Merge::Replace) {
            errors.push(Error::new_spanned(
                column.name,
                format!(
                    "other columns of `{}` are merged, so `{}` needs #[key], #[sum], #[min], \
                     #[max] or #[latest(by = …)]",
                    input.ident, column.name
                ),
            ));
        }
        if column.hidden && (column.filter || matches!(column.merge, Merge::Key)) {
            errors.push(Error::new_spanned(
                column.name,
                "a #[hidden] column can be neither a key nor filtered by",
            ));
        }
    }
    errors
}

fn spell_out(
    input: &DeriveInput,
    declared: &Declared,
    columns: &[Column<'_>],
    additive: bool,
) -> TokenStream {
    let (row, doc) = (&input.ident, doc(&input.attrs));
    let Declared { name, version, from } = declared;
    let keys: Vec<_> = columns.iter().filter(|c| matches!(c.merge, Merge::Key)).collect();
    let (key_names, key_types): (Vec<_>, Vec<_>) = keys.iter().map(|c| (c.name, c.ty)).unzip();
    let (key_type, key, key_values) = match (&key_types[..], &key_names[..]) {
        ([ty], [name]) => (quote!(#ty), quote!(self.#name.clone()), vec![quote!(key)]),
        _ => {
            let places = (0..keys.len()).map(syn::Index::from).map(|i| quote!(&key.#i)).collect();
            (quote!((#(#key_types),*)), quote!((#(self.#key_names.clone()),*)), places)
        }
    };
    let definitions = columns.iter().map(definition);
    let names: Vec<_> = columns.iter().map(|c| c.name).collect();
    // Every use of a column's type has the same span and form: a wrong type is one error, not
    // three.
    let to_value = columns.iter().map(|c| {
        let (name, ty) = (c.name, c.ty);
        quote_spanned!(ty.span()=> <#ty as ::foldstream_core::Column>::value(&self.#name))
    });
    let from_value = columns.iter().map(|c| {
        let ty = c.ty;
        quote_spanned! {ty.span()=>
            <#ty as ::foldstream_core::Column>::from_value(
                values.next().unwrap_or(::foldstream_core::Value::Null),
            )
        }
    });
    let ordered = ordered_columns(columns);
    let (nth, key_nth) = (0..columns.len(), 0..keys.len());
    let source = if additive { quote!(contribute) } else { quote!(fold) };
    let sources = from
        .iter()
        .map(|set| quote_spanned!(set.span()=> ::foldstream_core::Source::#source::<#set>()));
    let merge = additive.then(|| merge(row, columns));
    quote! {
        impl ::foldstream_core::ReadModel for #row {
            type Key = #key_type;
            const TABLE: ::foldstream_core::Table = ::foldstream_core::Table {
                name: #name, version: #version, doc: #doc, additive: #additive,
                columns: &[#(#definitions),*],
            };
            fn row_key(&self) -> Self::Key { #key }
            fn key_value(key: &Self::Key, column: usize) -> ::foldstream_core::Value<'_> {
                match column {
                    #(#key_nth => ::foldstream_core::Column::value(#key_values),)*
                    other => panic!("{} has no key column {other}", #name),
                }
            }
            fn value(&self, column: usize) -> ::foldstream_core::Value<'_> {
                match column {
                    #(#nth => #to_value,)*
                    other => panic!("{} has no column {other}", #name),
                }
            }
            fn from_values(
                values: Vec<::foldstream_core::Value<'_>>,
            ) -> Result<Self, ::foldstream_core::WrongType> {
                let mut values = values.into_iter();
                Ok(Self { #(#names: #from_value?),* })
            }
            fn sources() -> Vec<::foldstream_core::Source<Self>> {
                vec![#(#sources),*]
            }
        }
        #(impl ::foldstream_core::Reads<#from> for #row {})*
        #ordered
        #merge
    }
}

/// A compile-time check: what is filtered by has an order.
fn ordered_columns(columns: &[Column<'_>]) -> TokenStream {
    let filtered = columns.iter().filter(|c| c.filter).map(|c| {
        let ty = c.ty;
        quote_spanned!(ty.span()=> ordered::<#ty>();)
    });
    quote! {
        const _: fn() = || {
            fn ordered<T: ::foldstream_core::Ordered>() {}
            #(#filtered)*
        };
    }
}

fn definition(column: &Column<'_>) -> TokenStream {
    let Column { name, ty, doc, filter, hidden, .. } = column;
    let merge = match &column.merge {
        Merge::Key => quote!(Key),
        Merge::Replace => quote!(Replace),
        Merge::Sum => quote!(Sum),
        Merge::Min => quote!(Min),
        Merge::Max => quote!(Max),
        Merge::Latest(by) => quote!(Latest(&[#(stringify!(#by)),*])),
    };
    let filter = *filter || matches!(column.merge, Merge::Key);
    quote_spanned! {ty.span()=> ::foldstream_core::ColumnDef {
        name: stringify!(#name), doc: #doc, filter: #filter, hidden: #hidden,
        merge: ::foldstream_core::Merge::#merge,
        column_type: <#ty as ::foldstream_core::Column>::TYPE,
        nullable: <#ty as ::foldstream_core::Column>::NULLABLE,
        labels: <#ty as ::foldstream_core::Column>::LABELS,
    }}
}

fn merge(row: &Ident, columns: &[Column<'_>]) -> TokenStream {
    // Compare first: the statements below move the fields.
    let mut lists: Vec<&Vec<Ident>> = Vec::new();
    for column in columns {
        if let Merge::Latest(by) = &column.merge
            && !lists.contains(&by)
        {
            lists.push(by);
        }
    }
    let compare = lists.iter().enumerate().map(|(n, by)| {
        let latest = quote::format_ident!("latest_{n}");
        quote! {
            let #latest = std::cmp::Ordering::Equal
                #(.then_with(|| ::foldstream_core::by_is_greater(&other.#by, &self.#by)))*;
        }
    });
    let statements = columns.iter().map(|column| {
        let (name, ty) = (column.name, column.ty);
        let call = |name: &str| Ident::new(name, ty.span());
        let core = quote_spanned!(ty.span()=> ::foldstream_core);
        match &column.merge {
            Merge::Key | Merge::Replace => quote!(),
            Merge::Sum => {
                let f = call("merge_sum");
                quote_spanned!(ty.span()=> #core::#f::<#ty>(&mut self.#name, other.#name);)
            }
            Merge::Min => {
                let f = call("merge_min");
                quote_spanned!(ty.span()=> #core::#f::<#ty>(&mut self.#name, other.#name);)
            }
            Merge::Max => {
                let f = call("merge_max");
                quote_spanned!(ty.span()=> #core::#f::<#ty>(&mut self.#name, other.#name);)
            }
            Merge::Latest(by) => {
                let latest = quote::format_ident!(
                    "latest_{}",
                    lists.iter().position(|l| *l == by).expect("listed")
                );
                let f = call("merge_latest");
                quote_spanned!(ty.span()=> #core::#f::<#ty>(#latest, &mut self.#name, other.#name);)
            }
        }
    });
    quote! {
        impl ::foldstream_core::Additive for #row {
            fn merge(&mut self, other: Self) {
                #(#compare)*
                #(#statements)*
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn errors(input: &DeriveInput) -> Vec<String> {
        derive(input)
            .map_or_else(|error| error.into_iter().map(|e| e.to_string()).collect(), |_| Vec::new())
    }
    #[test]
    fn a_read_model_needs_a_key_and_docs() {
        let found = errors(&parse_quote! {
            #[read_model(name = "orders", version = 1, from(OrderEvent))]
            struct OrderRow { total: Money }
        });
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].contains("mark one column or more with #[key]"));
        assert!(found[1].contains("as the comment of the table"));
        assert!(found[2].contains("`total` needs a doc comment"));
    }
    #[test]
    fn all_columns_of_an_additive_one_say_how_they_merge() {
        let found = errors(&parse_quote! {
            /// Rows.
            #[read_model(name = "sales", version = 1, from(OrderEvent))]
            struct Sales {
                /// Day.
                #[key] day: Date,
                /// Sum.
                #[sum] net: Money,
                /// Forgotten.
                amount: Money,
            }
        });
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("`amount` needs #[key], #[sum]"));
    }
    #[test]
    fn latest_names_columns_that_exist_and_merge_in_no_other_way() {
        let found = errors(&parse_quote! {
            /// Rows.
            #[read_model(name = "sales", version = 1, from(OrderEvent))]
            struct Sales {
                /// Day.
                #[key] day: Date,
                /// Text.
                #[latest(by = (seen_at, nowhere))] text: String,
                /// Sum.
                #[sum] seen_at: i64,
            }
        });
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].contains("`seen_at` belongs to this `by`"));
        assert!(found[1].contains("there is no column `nowhere`"));
    }
    #[test]
    fn one_mark_per_column_and_known_attributes_only() {
        let twice = errors(&parse_quote! {
            /// Rows.
            #[read_model(name = "sales", version = 1, from(OrderEvent))]
            struct Sales {
                /// Day.
                #[key] #[sum] day: i64,
            }
        });
        assert!(twice[0].contains("either #[key] or merged in one way"), "{twice:#?}");
        let usage = errors(&parse_quote! {
            /// Rows.
            #[read_model(name = "sales")]
            struct Sales { /// Day.
                #[key] day: i64 }
        });
        assert!(usage[0].contains("a read model needs #[read_model("), "{usage:#?}");
        let unit = errors(&parse_quote! { enum Sales { A } });
        assert!(unit[0].contains("a read model is a struct"), "{unit:#?}");
    }
}
