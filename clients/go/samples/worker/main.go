// Command worker is the same in every language; docs/clients.md shows them side by side.
package main

import (
	"context"
	"log"

	headway "github.com/headway-project/headway/clients/go"
)

func stage(ctx context.Context, client *headway.Client, batch []string) (err error) {
	job, err := client.Create(ctx, headway.Spec{Name: "Stage MARC records", Size: int64(len(batch)), Unit: "records"})
	if err != nil {
		return err
	}
	defer job.Close(&err)
	for _, record := range headway.TrackSlice(job, batch) {
		job.SetMessage("staging " + record)
		job.Count("added", 1)
	}
	job.SetResults(map[string]int{"added": len(batch), "updated": 0})
	return nil
}

func main() {
	client, err := headway.Open(headway.Config{})
	if err != nil {
		log.Fatal(err)
	}
	err = stage(context.Background(), client, []string{"record 1", "record 2", "record 3"})
	client.Close()
	if err != nil {
		log.Fatal(err)
	}
}
