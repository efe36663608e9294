//! `#[derive(Module)]`: writes a visitor over a module's fields, and nothing else.

use proc_macro::TokenStream;
use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Index, parse_macro_input};

/// Implements `Module` for a struct by showing each field to the walk under its own name, so that parameter paths are
/// the field names joined by dots. Every field must be a `Module` itself (numbers, strings and options of modules
/// are); `#[module(skip)]` leaves a field out.
#[proc_macro_derive(Module, attributes(module))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> syn::Result<Tokens> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "Module can be derived for structs only"));
    };
    let nn = nn_path();
    let mut visits = Vec::new();
    for (position, field) in data.fields.iter().enumerate() {
        if is_skipped(field)? {
            continue;
        }
        let (name, access) = match (&data.fields, &field.ident) {
            (Fields::Named(_), Some(ident)) => (ident.to_string(), quote!(#ident)),
            _ => {
                let index = Index::from(position);
                (position.to_string(), quote!(#index))
            }
        };
        let name = name.trim_start_matches("r#");
        visits.push(quote!(walk.field(#name, &self.#access);));
    }
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let parameters = input.generics.type_params().map(|p| &p.ident);
    let bounds = quote!(#(#parameters: #nn::Module,)*);
    let where_clause = match where_clause {
        Some(clause) => {
            let predicates = &clause.predicates;
            quote!(where #bounds #predicates)
        }
        None => quote!(where #bounds),
    };
    Ok(quote! {
        impl #impl_generics #nn::Module for #ident #type_generics #where_clause {
            fn visit(&self, walk: &mut #nn::Walk<'_>) {
                #(#visits)*
            }
        }
    })
}

fn is_skipped(field: &syn::Field) -> syn::Result<bool> {
    let mut skipped = false;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("module")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                skipped = true;
                Ok(())
            } else {
                Err(meta.error("expected `skip`"))
            }
        })?;
    }
    Ok(skipped)
}

/// Where the user's crate finds `Module`: in `gradus::nn`, or in `gradus-nn` itself.
fn nn_path() -> Tokens {
    let named = |found: FoundCrate, own: &str| match found {
        // Examples and doc tests of the crate itself see it under its name.
        FoundCrate::Itself => format_ident!("{own}"),
        FoundCrate::Name(name) => syn::Ident::new(&name, Span::call_site()),
    };
    if let Ok(found) = crate_name("gradus") {
        let gradus = named(found, "gradus");
        return quote!(::#gradus::nn);
    }
    match crate_name("gradus-nn") {
        Ok(found) => {
            let nn = named(found, "gradus_nn");
            quote!(::#nn)
        }
        Err(_) => quote!(::gradus::nn),
    }
}
