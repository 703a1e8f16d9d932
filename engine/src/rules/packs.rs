//! The rules that the product ships with.

use super::set::{Origin, Source};

macro_rules! packs {
    ($($name:literal),*) => {
        /// The shipped packs, in the order in which they are read.
        #[must_use]
        pub fn packs() -> Vec<Source> {
            vec![$(Source {
                name: concat!("rules/", $name).into(),
                text: include_str!(concat!("../../../rules/", $name)).into(),
                origin: Origin::Pack,
            }),*]
        }
    };
}

packs!["protected.yaml", "persistence.yaml", "sockets.yaml", "network.yaml", "kernel.yaml"];
