//! The same in every language; docs/clients.md shows them side by side.

use headway::{Client, Error, JobOptions};
use serde_json::json;

fn main() -> Result<(), Error> {
    let batch = ["record 1", "record 2", "record 3"];
    let client = Client::connect()?;
    client.run(JobOptions::new("Stage MARC records").size(3).unit("records"), |job| {
        for record in job.track(batch) {
            job.set_message(format!("staging {record}"));
            job.count("added", 1);
        }
        Ok::<_, Error>(json!({"added": batch.len(), "updated": 0}))
    })?;
    Ok(())
}
