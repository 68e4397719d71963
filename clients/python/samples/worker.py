import headway

batch = ["record 1", "record 2", "record 3"]

with headway.connect() as hw, hw.job(name="Stage MARC records", size=len(batch), unit="records") as job:
    for record in job.track(batch):
        job.message = f"staging {record}"
        job.count("added")
    job.results = {"added": len(batch), "updated": 0}
