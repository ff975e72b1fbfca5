package kit

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has taken of the machine so far.
type Usage struct {
	CPU time.Duration
	MB  float64 // resident
}

// Usage reads the kernel's account of the process.
func (p *Process) Usage(t *T) Usage {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	t.OK(err, "the process's account")
	// The second field is the program's name, which may hold anything; what follows it is split by spaces.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	number := func(field int) int64 {
		n, err := strconv.ParseInt(fields[field-3], 10, 64)
		t.OK(err, "the process's account")
		return n
	}
	const user, system, pages = 14, 15, 24
	ticks := number(user) + number(system)
	return Usage{
		CPU: time.Duration(ticks) * (time.Second / 100),
		MB:  float64(number(pages)) * float64(os.Getpagesize()) / 1e6,
	}
}

// Since is what was taken between two readings, in processor time; the memory is that of the later one.
func (u Usage) Since(before Usage) Usage { return Usage{CPU: u.CPU - before.CPU, MB: u.MB} }
