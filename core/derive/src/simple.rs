//! `#[derive(Event)]` and `#[derive(Column)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Result};

/// The doc comment as one string.
pub(crate) fn doc(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => {
                Some(text.value().trim().to_owned())
            }
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

pub(crate) fn event(input: &DeriveInput) -> Result<TokenStream> {
    let (name, doc) = (&input.ident, doc(&input.attrs));
    if doc.is_empty() {
        return Err(Error::new_spanned(
            name,
            "an event needs a doc comment: it becomes the documentation of the schema",
        ));
    }
    let upcast = upcast(&input.attrs)?.map(|function| {
        quote_spanned! {function.span()=>
            fn upcast(
                written: &mut ::foldstream_core::Written<'_>,
            ) -> Result<(), ::foldstream_core::Undecodable> {
                #function(written)
            }
        }
    });
    Ok(quote! {
        impl ::foldstream_core::Event for #name {
            const NAME: &'static str = stringify!(#name);
            const DOC: &'static str = #doc;
            #upcast
        }
    })
}

/// The function that `#[event(upcast = …)]` names.
fn upcast(attributes: &[syn::Attribute]) -> Result<Option<syn::Path>> {
    let mut function = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("upcast") || function.is_some() {
                return Err(meta.error("an event knows #[event(upcast = a_function)], once"));
            }
            function = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(function)
}

pub(crate) fn column(input: &DeriveInput) -> Result<TokenStream> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                Ok(newtype(input, &fields.unnamed[0].ty))
            }
            _ => Err(Error::new_spanned(
                &input.ident,
                "Column is for a newtype such as `struct Sku(String)`, or an enum without fields",
            )),
        },
        Data::Enum(data) => labels(input, data),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "a union cannot be a column")),
    }
}

fn newtype(input: &DeriveInput, inner: &syn::Type) -> TokenStream {
    let name = &input.ident;
    quote! {
        impl ::foldstream_core::Column for #name {
            const TYPE: ::foldstream_core::ColumnType = <#inner as ::foldstream_core::Column>::TYPE;
            const NULLABLE: bool = <#inner as ::foldstream_core::Column>::NULLABLE;
            fn value(&self) -> ::foldstream_core::Value<'_> {
                ::foldstream_core::Column::value(&self.0)
            }
            fn from_value(
                value: ::foldstream_core::Value<'_>,
            ) -> Result<Self, ::foldstream_core::WrongType> {
                ::foldstream_core::Column::from_value(value).map(#name)
            }
        }
        impl ::foldstream_core::Ordered for #name where #inner: ::foldstream_core::Ordered {}
    }
}

fn labels(input: &DeriveInput, data: &syn::DataEnum) -> Result<TokenStream> {
    let name = &input.ident;
    if let Some(variant) = data.variants.iter().find(|v| !v.fields.is_empty()) {
        return Err(Error::new_spanned(
            variant,
            "a variant with fields cannot be a column; use Json<…>, or columns of its own",
        ));
    }
    let variants: Vec<_> = data.variants.iter().map(|v| &v.ident).collect();
    let texts: Vec<_> = variants.iter().map(|v| snake_case(&v.to_string())).collect();
    Ok(quote! {
        impl ::foldstream_core::Column for #name {
            const TYPE: ::foldstream_core::ColumnType = ::foldstream_core::ColumnType::Text;
            const LABELS: &'static [&'static str] = &[#(#texts),*];
            fn value(&self) -> ::foldstream_core::Value<'_> {
                let text = match self { #(#name::#variants => #texts),* };
                ::foldstream_core::Value::Text(text.into())
            }
            fn from_value(
                value: ::foldstream_core::Value<'_>,
            ) -> Result<Self, ::foldstream_core::WrongType> {
                match value {
                    #(::foldstream_core::Value::Text(text) if text == #texts => {
                        Ok(#name::#variants)
                    })*
                    other => Err(::foldstream_core::WrongType {
                        expected: ::foldstream_core::ColumnType::Text,
                        found: format!("{other:?}"),
                    }),
                }
            }
        }
        impl ::foldstream_core::Ordered for #name {}
    })
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn said(input: &DeriveInput) -> String {
        event(input).map_or_else(|error| error.to_string(), |tokens| tokens.to_string())
    }
    #[test]
    fn an_event_names_its_upcaster_once() {
        let good = said(&parse_quote! {
            /// Sold.
            #[event(upcast = split_name)]
            struct Sold { sku: String }
        });
        assert!(good.contains("fn upcast") && good.contains("split_name (written)"), "{good}");
        let plain = said(&parse_quote! {
            /// Sold.
            struct Sold { sku: String }
        });
        assert!(!plain.contains("upcast"), "{plain}");
        for bad in [
            parse_quote! {
                /// Sold.
                #[event(downcast = split_name)]
                struct Sold {}
            },
            parse_quote! {
                /// Sold.
                #[event(upcast = a, upcast = b)]
                struct Sold {}
            },
        ] {
            let bad = said(&bad);
            assert!(bad.contains("an event knows #[event(upcast = a_function)], once"), "{bad}");
        }
        let silent = said(&parse_quote! { struct Sold {} });
        assert!(silent.contains("needs a doc comment"), "{silent}");
    }
}
