// Control-planes drives an Envoy binary through real control planes and a real rate-limit service.
//
// Each scenario prints one line, "ok NAME" or "FAIL NAME: why"; the last line is "N passed, N failed".
// The exit code is 1 if anything failed. A scenario is believed because the real Envoy passes it:
//
//	go run . -binary path/to/envoy
//	go run . -binary path/to/nuncio -run faults/
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/scenarios"
)

// The programs of others that scenarios run, built from the module cache.
var tools = map[string]string{
	"go-control-plane-test": "github.com/envoyproxy/go-control-plane/pkg/test/main",
	"ratelimit":             "github.com/envoyproxy/ratelimit/src/service_cmd",
}

// istioTools are built only for scenarios of Istio: a first build of them takes minutes.
var istioTools = map[string]string{
	"istioctl":    "istio.io/istio/istioctl/cmd/istioctl",
	"istiod":      "./istiod",
	"pilot-agent": "istio.io/istio/pilot/cmd/pilot-agent",
}

func main() {
	target := flag.String("target", "../../target", "folder for built programs and logs")
	binary := flag.String("binary", "", "the proxy under test (default TARGET/debug/nuncio)")
	pattern := flag.String("run", "", "only scenarios whose name matches this regular expression")
	long := flag.Bool("long", false, "keep each load up for a minute")
	jobs := flag.Int("jobs", 2, "scenarios at a time")
	public := flag.Bool("public", false, "the proxy knows no type of Istio's own: istiod sends none")
	list := flag.Bool("list", false, "print the scenarios' names and end")
	build := flag.Bool("build", false, "only build the programs the scenarios need")
	flag.Parse()

	wanted := regexp.MustCompile(*pattern)
	var chosen []scenarios.Scenario
	for _, s := range scenarios.All() {
		if wanted.MatchString(s.Name) {
			chosen = append(chosen, s)
		}
	}
	if *list {
		for _, s := range chosen {
			fmt.Println(s.Name)
		}
		return
	}
	if slices.ContainsFunc(chosen, func(s scenarios.Scenario) bool { return strings.HasPrefix(s.Name, "istio/") }) {
		maps.Copy(tools, istioTools)
	}
	err := buildTools(*target)
	if err == nil && *build {
		return
	}
	var settings kit.Settings
	if err == nil {
		settings, err = prepare(*target, *binary, *long, *public)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		fmt.Println("0 passed, 1 failed")
		os.Exit(1)
	}
	results := &tally{total: len(chosen)}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-interrupted
		kit.KillAll()
		os.Exit(results.close())
	}()
	run(settings, chosen, *jobs, results)
	os.Exit(results.close())
}

// tally counts and prints; nothing is printed after its closing line.
type tally struct {
	mu            sync.Mutex
	total, passed int
}

func (t *tally) add(name string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.passed++
		fmt.Printf("ok %s\n", name)
	} else {
		fmt.Printf("FAIL %s: %s\n", name, oneLine(err))
	}
}

// close prints the closing line and gives the exit code; what was not run has not passed. It keeps
// the lock: the process ends here.
func (t *tally) close() int {
	t.mu.Lock()
	failed := t.total - t.passed
	fmt.Printf("%d passed, %d failed\n", t.passed, failed)
	if failed > 0 || t.passed == 0 {
		return 1
	}
	return 0
}

func buildTools(target string) error {
	for name, pkg := range tools {
		build := exec.Command("go", "build", "-o", filepath.Join(target, "conformance", "bin", name), pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

func prepare(target, binary string, long, public bool) (kit.Settings, error) {
	target, err := filepath.Abs(target)
	if err != nil {
		return kit.Settings{}, err
	}
	if binary == "" {
		binary = filepath.Join(target, "debug", "nuncio")
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return kit.Settings{}, err
	}
	if _, err := os.Stat(binary); err != nil {
		return kit.Settings{}, err
	}
	folder := filepath.Join(target, "conformance")
	return kit.Settings{
		Binary: binary,
		Tools:  filepath.Join(folder, "bin"),
		Logs:   filepath.Join(folder, "logs"),
		Long:   long,
		Public: public,
	}, nil
}

// run gives each scenario its turn. One that fails beside others runs once more, alone: programs of
// others among them have time limits of their own, which a busy machine breaks. One that fails twice
// has failed; a -long run, whose load is the point, has one try.
func run(settings kit.Settings, chosen []scenarios.Scenario, jobs int, results *tally) {
	limit := 2 * time.Minute
	if settings.Long {
		limit = 6 * time.Minute
	}
	queue := make(chan scenarios.Scenario)
	var mu sync.Mutex
	var again []scenarios.Scenario
	var wg sync.WaitGroup
	for range max(jobs, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for s := range queue {
				err := kit.Run(settings, s.Name, limit, s.Run)
				if err == nil || settings.Long {
					results.add(s.Name, err)
					continue
				}
				fmt.Printf("again, alone: %s: %s\n", s.Name, oneLine(err))
				mu.Lock()
				again = append(again, s)
				mu.Unlock()
			}
		}()
	}
	for _, s := range chosen {
		queue <- s
	}
	close(queue)
	wg.Wait()
	for _, s := range again {
		results.add(s.Name, kit.Run(settings, s.Name, limit, s.Run))
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", " | ")
}
