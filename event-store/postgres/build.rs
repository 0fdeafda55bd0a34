//! The migrations are part of the library: a new file must lead to a new build.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
