package scenarios

import (
	"path/filepath"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// istioBootstraps loads every bootstrap that Istio's own tests expect its agent to write, with the flags
// the agent gives, straight from the module cache. Nothing in them is replaced: a configuration is only
// validated, so no socket or certificate they name is opened.
func istioBootstraps() []Scenario {
	return []Scenario{{"istio/bootstraps", runIstioBootstraps}}
}

// notPublic are those that Envoy as published refuses: a bootstrap extension of Istio's own, and a tracer that
// Envoy has dropped but an old mesh may still name.
var notPublic = map[string]bool{"ambient_golden.json": true, "tracing_lightstep_golden.json": true}

func runIstioBootstraps(t *kit.T) {
	golden, err := filepath.Glob(filepath.Join(plane.IstioModule(t), "pkg", "bootstrap", "testdata", "*_golden.json"))
	t.OK(err, "golden bootstraps")
	t.Expect(len(golden) >= 25, "only %d golden bootstraps", len(golden))
	var refused []string
	loaded := 0
	for _, path := range golden {
		name := filepath.Base(path)
		if t.Public && notPublic[name] {
			continue
		}
		run := t.Start(name, nil, t.Binary, "-c", path, "--mode", "validate",
			"--drain-time-s", "45", "--drain-strategy", "immediate", "--local-address-ip-version", "v4", "--file-flush-interval-msec", "1000",
			"--disable-hot-restart", "--allow-unknown-static-fields", "-l", "warning", "--skip-deprecated-logs", "--concurrency", "2")
		code, err := run.Wait(30 * time.Second)
		t.OK(err, name)
		if code != 0 {
			refused = append(refused, name+": "+lastOf(run.Tail(600)))
		} else {
			loaded++
		}
	}
	t.Expect(len(refused) == 0, "%d of %d refused: %s", len(refused), len(golden), strings.Join(refused, "; "))
	t.Note("%d bootstraps load", loaded)
}

func lastOf(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
