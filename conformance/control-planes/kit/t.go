// Package kit is what every scenario stands on: one scenario's state and its clean-up, processes, free
// ports, the proxy under test, upstreams, a bounded load generator and throw-away certificates.
package kit

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Settings are the same for every scenario of a run.
type Settings struct {
	Binary string // the proxy under test
	Tools  string // folder with the control planes' built programs
	Logs   string // one folder per scenario is made here
	Long   bool   // a minute per load scenario instead of a few seconds
	Public bool   // the binary is Envoy as published: it knows no type of Istio's own
}

// T is one running scenario. A check that does not hold ends the scenario.
type T struct {
	Settings
	Name string
	Dir  string

	mu       sync.Mutex
	cleanups []func()
}

// failure is what Fatalf throws and Run catches.
type failure string

// Run executes one scenario and gives the reason why it failed, or nil. Whatever the scenario
// started is ended before Run returns.
func Run(s Settings, name string, limit time.Duration, scenario func(*T)) error {
	dir := filepath.Join(s.Logs, strings.ReplaceAll(name, "/", "-"))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	t := &T{Settings: s, Name: name, Dir: dir}
	done := make(chan error, 1)
	go func() {
		defer func() {
			switch why := recover().(type) {
			case nil:
				done <- nil
			case failure:
				done <- fmt.Errorf("%s", string(why))
			default:
				done <- fmt.Errorf("panic in the scenario: %v: %s", why, debug.Stack())
			}
		}()
		scenario(t)
	}()
	var err error
	select {
	case err = <-done:
	case <-time.After(limit):
		err = fmt.Errorf("not finished after %v", limit)
	}
	t.clean()
	return err
}

func (t *T) clean() {
	for {
		t.mu.Lock()
		last := len(t.cleanups) - 1
		if last < 0 {
			t.mu.Unlock()
			return
		}
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		t.mu.Unlock()
		f()
	}
}

// Cleanup runs f when the scenario is over, the latest first.
func (t *T) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// Fatalf ends the scenario as failed. Only for the scenario's own goroutine.
func (t *T) Fatalf(format string, args ...any) {
	panic(failure(fmt.Sprintf(format, args...)))
}

// OK ends the scenario if err is set.
func (t *T) OK(err error, what string) {
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Expect ends the scenario unless the condition holds.
func (t *T) Expect(holds bool, format string, args ...any) {
	if !holds {
		t.Fatalf(format, args...)
	}
}

// Note prints a figure of the scenario beside its verdict; nothing is decided by it.
func (t *T) Note(format string, args ...any) {
	fmt.Printf("note %s: %s\n", t.Name, fmt.Sprintf(format, args...))
}

// Eventually asks until f has nothing to complain about, and gives up after the limit.
func (t *T) Eventually(limit time.Duration, what string, f func() error) {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// LoadTime is how long a scenario keeps its load up: short, or the long one when asked for.
func (t *T) LoadTime(short time.Duration) time.Duration {
	if t.Long {
		return time.Minute
	}
	return short
}

// Write puts text in a file of the scenario's folder and gives its path.
func (t *T) Write(name, text string) string {
	path := filepath.Join(t.Dir, name)
	t.OK(os.WriteFile(path, []byte(text), 0o644), "write "+name)
	return path
}

// Replace puts text in a file of the scenario's folder by an atomic move, and gives its path.
func (t *T) Replace(name, text string) string {
	fresh := t.Write("."+name+".new", text)
	path := filepath.Join(t.Dir, name)
	t.OK(os.Rename(fresh, path), "move "+name)
	return path
}

// SocketDir is a folder whose name is short enough for a unix socket's path.
func (t *T) SocketDir() string {
	dir, err := os.MkdirTemp("", "conformance")
	t.OK(err, "temporary folder")
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
