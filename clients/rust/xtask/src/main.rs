//! `cargo run -p xtask`: makes src/proto from the protos of the repository, without protoc.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no folder above this one")?;
    let protos = here.join("../../protos");
    let files = ["headway/v1/job_service.proto", "headway/v1/error_reason.proto"];
    let described = protox::compile(files, [&protos])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_package(false)
        .btree_map(".")
        .out_dir(here.join("src/proto"))
        .compile_fds(described)?;
    // Only annotations, which no message needs.
    std::fs::remove_file(here.join("src/proto/google.api.rs"))?;
    Ok(())
}
