//! Generated from the protos of the repository by `make stubs`.

pub(crate) mod google {
    pub(crate) mod rpc {
        include!("google.rpc.rs");
    }
}

pub(crate) mod headway {
    pub(crate) mod v1 {
        include!("headway.v1.rs");
    }
}
