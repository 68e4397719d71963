package headway_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var block = regexp.MustCompile("(?s)```go\n(.*?)```")

// flat is code without its indentation.
func flat(code string) string {
	lines := strings.Split(strings.TrimSpace(code), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

func TestReadmeIsTakenFromTheExamples(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Error("no code in the README")
	}
	for _, found := range blocks {
		if !strings.Contains(flat(string(examples)), flat(found[1])) {
			t.Errorf("not in example_test.go:\n%s", found[1])
		}
	}
}
