package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"nuncio/conformance/control-planes/kit"
)

const gcpModule = "github.com/envoyproxy/go-control-plane"

// goControlPlane is the library's own integration test in every mode it has. The test program is
// control plane and client at once: it sends three versions of a snapshot (CDS, EDS, LDS, RDS, SRDS, VHDS, RTDS,
// ECDS, SDS) and asks every listener after each.
func goControlPlane() []Scenario {
	modes := []struct {
		xds string
		mux bool
	}{{"ads", false}, {"xds", false}, {"rest", false}, {"xds", true}, {"delta", false}, {"delta-ads", false}}
	var out []Scenario
	for _, tls := range []bool{false, true} {
		for _, m := range modes {
			name := "go-control-plane/" + m.xds
			if m.mux {
				name += "-mux"
			}
			if tls {
				name += "-tls"
			}
			out = append(out, Scenario{name, func(t *kit.T) { runGoControlPlane(t, m.xds, m.mux, tls) }})
		}
	}
	return out
}

func runGoControlPlane(t *kit.T, xds string, mux, tls bool) {
	upstream := t.Upstream("Hi, there!\n", nil)
	ports := map[string]int{"18000": t.Port(), "18001": t.Port(), "18090": t.Port(), "19000": t.Port()}
	listeners := t.Ports(8)
	proxy := t.Proxy("proxy", ports["19000"], gcpBootstrap(t, xds, ports), "-l", "debug")

	// The library's script gives ADS a second runtime layer.
	runtimes := "1"
	if xds == "ads" {
		runtimes = "2"
	}
	args := []string{
		"-xds=" + xds, "-runtimes=" + runtimes, "-debug", "-message=" + upstream.Name,
		fmt.Sprintf("-port=%d", ports["18000"]), fmt.Sprintf("-gateway=%d", ports["18001"]),
		fmt.Sprintf("-als=%d", ports["18090"]), fmt.Sprintf("-upstream=%d", upstream.Port),
		fmt.Sprintf("-base=%d", listeners),
	}
	if mux {
		args = append(args, "-mux")
	}
	if tls {
		args = append(args, "-tls")
	}
	test := t.Start("control-plane", nil, filepath.Join(t.Tools, "go-control-plane-test"), args...)
	code, err := test.Wait(75 * time.Second)
	t.OK(err, "the test program")
	t.Expect(code == 0, "the test program ended with %d: %s", code, verdict(test.Tail(4000)))
	t.Expect(strings.Contains(test.Tail(400), "passed!"), "no word of passing: %s", verdict(test.Tail(400)))
	rejected := proxy.Rejections()
	t.Expect(len(rejected) == 0, "refused updates: %s", strings.Join(rejected, ", "))
	proxy.Stop()
}

// gcpBootstrap is the module's own bootstrap of this mode with its fixed ports exchanged for free ones.
func gcpBootstrap(t *kit.T, xds string, ports map[string]int) string {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", gcpModule).Output()
	t.OK(err, "go list -m "+gcpModule)
	sample := filepath.Join(strings.TrimSpace(string(dir)), "sample", "bootstrap-"+xds+".yaml")
	text, err := os.ReadFile(sample)
	t.OK(err, "bootstrap of go-control-plane")
	return regexp.MustCompile(`port_value: (\d+)`).ReplaceAllStringFunc(string(text), func(field string) string {
		fixed := strings.TrimPrefix(field, "port_value: ")
		port, known := ports[fixed]
		t.Expect(known, "unknown port %s in %s", fixed, sample)
		return "port_value: " + strconv.Itoa(port)
	})
}

// verdict picks the lines in which the test program counts its requests.
func verdict(log string) string {
	var lines []string
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "request batch") || strings.Contains(line, "failed") || strings.Contains(line, "timeout") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}
