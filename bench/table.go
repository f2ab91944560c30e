package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// tables prints what a contest measured, in Markdown.
type tables struct {
	records    []record
	contenders []*contender
}

func (t *tables) print(w io.Writer, p *plan) {
	fmt.Fprintf(w, "\n%d small files of 1 to 16 KiB and a big one of %d MiB; where the store is %s away, %d and %d MiB.\n\n", p.files, p.big, p.delay, p.s3Files, p.s3Big)
	for _, c := range t.contenders {
		fmt.Fprintf(w, "- %s: %s\n", c.name, c.about)
	}
	t.ratios(w, "ext4", "ext4's time by the contender's: 1 is as fast as the disk, 0.1 ten times slower", func(*contender) bool { return true })
	t.ratios(w, "loopback", "Loopback's time by the contender's: 1 is what FUSE costs anyone", func(c *contender) bool { return c.s3 == nil && c.name != "ext4" })
	t.latency(w)
	t.far(w)
	t.errors(w)
}

// row is a measure in its circumstances.
type row struct{ when, name string }

func (r row) String() string {
	if r.when == cold.when || r.when == warm.when {
		return r.name + ", " + r.when
	}
	return r.name
}

func (t *tables) rows() []row {
	var rows []row
	for _, r := range t.records {
		if k := (row{r.When, r.Name}); !slices.Contains(rows, k) {
			rows = append(rows, k)
		}
	}
	return rows
}

func (t *tables) find(k row, contender string) *record {
	for i := range t.records {
		if r := &t.records[i]; r.When == k.when && r.Name == k.name && r.Contender == contender {
			return r
		}
	}
	return nil
}

// line prints a row of a table.
func line(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

func head(w io.Writer, cells ...string) {
	line(w, cells...)
	line(w, slices.Repeat([]string{"---"}, len(cells))...)
}

// ratios prints a table of times by those of one contender, whose own are given as they are.
func (t *tables) ratios(w io.Writer, base, title string, in func(*contender) bool) {
	if !slices.ContainsFunc(t.contenders, func(c *contender) bool { return c.name == base }) {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n", title)
	cells := []string{"measure", base}
	var cs []*contender
	for _, c := range t.contenders {
		if c.name != base && in(c) {
			cs = append(cs, c)
			cells = append(cells, c.name)
		}
	}
	head(w, cells...)
	for _, k := range t.rows() {
		b := t.find(k, base)
		if b == nil {
			continue
		}
		cells := []string{k.String(), speed(b)}
		for _, c := range cs {
			cells = append(cells, ratio(b, t.find(k, c.name)))
		}
		line(w, cells...)
	}
}

func ratio(base, r *record) string {
	switch {
	case r == nil:
		return ""
	case r.Error != "":
		return "failed"
	case base.Error != "" || r.Seconds == 0 || base.Seconds == 0:
		return "?"
	}
	switch q := base.each() / r.each(); {
	case q >= 9.95:
		return fmt.Sprintf("%.0f", q)
	case q >= 0.095:
		return fmt.Sprintf("%.2f", q)
	case q >= 0.0095:
		return fmt.Sprintf("%.3f", q)
	default:
		return fmt.Sprintf("%.1g", q)
	}
}

// speed is a record's own: the time of one operation, or MB/s of a big file.
func speed(r *record) string {
	switch {
	case r == nil:
		return ""
	case r.Error != "":
		return "failed"
	case r.Name == "write" || r.Name == "seqread":
		return fmt.Sprintf("%.0f MB/s", float64(r.Bytes)/1e6/r.Seconds)
	case r.Name == "commit":
		return duration(r.Seconds * 1e6)
	}
	return duration(r.each() * 1e6)
}

// duration prints microseconds with three digits.
func duration(us float64) string {
	switch {
	case us >= 999_500:
		return fmt.Sprintf("%.3g s", us/1e6)
	case us >= 999.5:
		return fmt.Sprintf("%.3g ms", us/1e3)
	default:
		return fmt.Sprintf("%.3g µs", us)
	}
}

// latency prints the times of single operations.
func (t *tables) latency(w io.Writer) {
	fmt.Fprintf(w, "\n### One operation: median and 99th percentile\n\n")
	cells := []string{"measure"}
	for _, c := range t.contenders {
		cells = append(cells, c.name)
	}
	head(w, cells...)
	for _, k := range t.rows() {
		cells := []string{k.String()}
		some := false
		for _, c := range t.contenders {
			r := t.find(k, c.name)
			if r == nil || r.Error != "" || r.P99 == 0 {
				cells = append(cells, "")
				continue
			}
			some = true
			cells = append(cells, duration(r.P50)+", "+duration(r.P99))
		}
		if some {
			line(w, cells...)
		}
	}
}

// far prints what those cost whose store counts requests.
func (t *tables) far(w io.Writer) {
	var cs []*contender
	cells := []string{"measure"}
	for _, c := range t.contenders {
		if c.s3 != nil {
			cs = append(cs, c)
			cells = append(cells, c.name)
		}
	}
	if len(cs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n### Far store: speed, until it was stored, and requests\n\n")
	head(w, cells...)
	for _, k := range t.rows() {
		cells := []string{k.String()}
		some := false
		for _, c := range cs {
			r := t.find(k, c.name)
			if r == nil {
				cells = append(cells, "")
				continue
			}
			some = true
			s := speed(r)
			if r.Stored > 0 && r.Stored >= r.Seconds+0.1 {
				s += fmt.Sprintf("; stored after %s", duration(r.Stored*1e6))
			}
			if r.Requests != nil {
				s += "; " + r.Requests.String()
			}
			cells = append(cells, s)
		}
		if some {
			line(w, cells...)
		}
	}
}

// errors prints why measures failed.
func (t *tables) errors(w io.Writer) {
	first := true
	for _, r := range t.records {
		if r.Error == "" {
			continue
		}
		if first {
			fmt.Fprintf(w, "\nFailed:\n\n")
			first = false
		}
		fmt.Fprintf(w, "- %s, %s: %s\n", r.Contender, row{r.When, r.Name}, r.Error)
	}
}
