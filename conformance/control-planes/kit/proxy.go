package kit

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Proxy is one running Envoy binary.
type Proxy struct {
	*Process
	t     *T
	admin int
}

// Proxy starts the binary under test with a bootstrap whose admin listens on the given port. It does
// not wait for readiness.
func (t *T) Proxy(name string, admin int, bootstrap string, args ...string) *Proxy {
	ending := ".yaml"
	if strings.HasPrefix(bootstrap, "{") {
		ending = ".json"
	}
	config := t.Write(name+ending, bootstrap)
	// Hot restart's shared memory would let only one proxy run on a machine.
	all := append([]string{"-c", config, "--disable-hot-restart", "--concurrency", "2"}, args...)
	if !slices.Contains(args, "--drain-time-s") {
		all = append(all, "--drain-time-s", "1")
	}
	return &Proxy{Process: t.Start(name, nil, t.Binary, all...), t: t, admin: admin}
}

// ProxyOf is the proxy that a launcher starts, by its admin port.
func (t *T) ProxyOf(launcher *Process, admin int) *Proxy {
	return &Proxy{Process: launcher, t: t, admin: admin}
}

// A proxy that applies ten thousand clusters answers late.
var adminClient = &http.Client{Timeout: 30 * time.Second}

// Generation starts the binary under test as one of a line of processes that follow each other: of the
// same base id, with its epoch.
func (t *T) Generation(base, epoch, admin int, bootstrap string, args ...string) *Proxy {
	name := fmt.Sprintf("epoch-%d", epoch)
	config := t.Write(name+".yaml", bootstrap)
	all := append([]string{"-c", config, "--base-id", strconv.Itoa(base), "--restart-epoch", strconv.Itoa(epoch)}, args...)
	return &Proxy{Process: t.Start(name, nil, t.Binary, all...), t: t, admin: admin}
}

// Get asks the admin endpoint: status, body.
func (p *Proxy) Get(path string) (int, string, error) {
	return read(adminClient.Get(fmt.Sprintf("http://127.0.0.1:%d%s", p.admin, path)))
}

// Post is Get for what changes something.
func (p *Proxy) Post(path string) (int, string, error) {
	return read(adminClient.Post(fmt.Sprintf("http://127.0.0.1:%d%s", p.admin, path), "", nil))
}

func read(resp *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// Ready waits until /ready answers 200.
func (p *Proxy) Ready(limit time.Duration) {
	p.t.Eventually(limit, "the proxy is ready", func() error {
		if !p.Running() {
			p.t.Fatalf("the proxy ended: %s", lastLine(p.Tail(600)))
		}
		code, body, err := p.Get("/ready")
		if err != nil {
			return err
		}
		if code != http.StatusOK {
			return fmt.Errorf("/ready is %d %s", code, strings.TrimSpace(body))
		}
		return nil
	})
}

// Stat is the value of one counter or gauge; absent is 0.
func (p *Proxy) Stat(name string) int {
	_, body, err := p.Get("/stats?filter=" + url.QueryEscape("^"+strings.ReplaceAll(name, ".", `\.`)+"$"))
	p.t.OK(err, "/stats")
	for _, line := range strings.Split(body, "\n") {
		if rest, ok := strings.CutPrefix(line, name+": "); ok {
			value, err := strconv.Atoi(strings.TrimSpace(rest))
			p.t.OK(err, "stat "+name)
			return value
		}
	}
	return 0
}

// Rejections are the xDS subscriptions that refused an update.
func (p *Proxy) Rejections() []string {
	_, body, err := p.Get("/stats?filter=update_rejected")
	p.t.OK(err, "/stats")
	var out []string
	for _, line := range strings.Split(body, "\n") {
		if line != "" && !strings.HasSuffix(line, ": 0") {
			out = append(out, line)
		}
	}
	return out
}

// Stop ends the proxy as an orchestrator does and holds it to its word: SIGTERM, exit code 0, soon.
func (p *Proxy) Stop() {
	p.t.Expect(p.Running(), "the proxy had ended before it was stopped: %s", lastLine(p.Tail(600)))
	code, err := p.Terminate(10 * time.Second)
	p.t.OK(err, "SIGTERM")
	p.t.Expect(code == 0, "exit code %d after SIGTERM", code)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
