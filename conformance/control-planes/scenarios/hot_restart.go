package scenarios

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// hotRestarts: a process follows another on the same sockets, as a restarter of Envoy drives them: each
// has one epoch more, and the one before ends by itself with exit code 0.
func hotRestarts() []Scenario {
	run := func(f func(*line)) func(*kit.T) {
		return func(t *kit.T) { f(newLine(t)) }
	}
	return []Scenario{
		{"hot-restart/static", run(func(l *line) { l.restarts(l.static(true)) })},
		{"hot-restart/one-socket-for-all-workers", run(func(l *line) { l.restarts(l.static(false)) })},
		{"hot-restart/xds/sotw", run(func(l *line) { l.restarts(l.dynamic(sotw)) })},
		{"hot-restart/xds/delta", run(func(l *line) { l.restarts(l.dynamic(delta)) })},
		{"hot-restart/other-number-of-workers", run(betterThanEnvoy(otherWorkers))},
		{"hot-restart/child-dies", run(betterThanEnvoy(childDies))},
		{"hot-restart/parent-dies", run(betterThanEnvoy(parentDies))},
	}
}

const (
	drainSeconds    = 1
	shutdownSeconds = 3
)

// line is a line of processes, and everything they listen at.
type line struct {
	*kit.T
	base, admin           int
	http, https, tcp      int
	pipe                  string
	one                   *kit.Upstream
	echo                  int
	ca                    *kit.Authority
	cert, key             string
	epoch                 int
	workers               []string
	connections, restartN int
}

func newLine(t *kit.T) *line {
	l := &line{T: t, base: t.Port(), admin: t.Port(), http: t.Port(), https: t.Port(), tcp: t.Port()}
	l.pipe = filepath.Join(t.SocketDir(), "http")
	l.one, l.echo, l.ca = t.Upstream("one", nil), t.EchoServer(), t.Authority()
	l.cert, l.key = l.ca.Issue(1, "localhost")
	l.workers, l.connections, l.restartN = []string{"2"}, 100, 2
	if t.Long {
		l.connections, l.restartN = 1000, 10
	}
	return l
}

// listeners are the YAML texts of all four.
func (l *line) listeners(reusePort bool, routes string) []string {
	tcpAddress := func(port int) string {
		return fmt.Sprintf("{socket_address: {address: 127.0.0.1, port_value: %d}}", port)
	}
	text := func(name, address, filters, more string) string {
		reuse := ""
		if !strings.Contains(address, "pipe") {
			reuse = fmt.Sprintf("enable_reuse_port: %v", reusePort)
		}
		return fmt.Sprintf("\nname: %s\naddress: %s\n%s\nfilter_chains:\n- filters:%s%s", name, address, reuse, filters, more)
	}
	tlsSocket := fmt.Sprintf(`
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_certificates:
        - certificate_chain:
            inline_string: |
              %s
          private_key:
            inline_string: |
              %s
`, indent(l.cert, 14), indent(l.key, 14))
	proxied := `
  - name: tcp
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tcp
      cluster: echo
`
	return []string{
		text("http", tcpAddress(l.http), hcm(routes), ""),
		text("https", tcpAddress(l.https), hcm(routes), tlsSocket),
		text("tcp", tcpAddress(l.tcp), proxied, ""),
		text("pipe", fmt.Sprintf("{pipe: {path: %s}}", l.pipe), hcm(routes), ""),
	}
}

// static is a bootstrap that holds everything.
func (l *line) static(reusePort bool) string {
	inline := `route_config: {name: inline, virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: back}}]}]}`
	var items []string
	for _, text := range l.listeners(reusePort, inline) {
		items = append(items, "  -"+strings.TrimPrefix(strings.ReplaceAll(text, "\n", "\n    "), "\n   "))
	}
	return fmt.Sprintf(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
stats_flush_interval: 0.2s
static_resources:
  clusters:
  - {name: back, connect_timeout: 1s, load_assignment: {cluster_name: back, endpoints: [{lb_endpoints: [%s]}]}}
  - {name: echo, connect_timeout: 1s, load_assignment: {cluster_name: echo, endpoints: [{lb_endpoints: [%s]}]}}
  listeners:
%s
`, l.admin, at(l.one.Port), at(l.echo), strings.Join(items, "\n"))
}

// dynamic is a bootstrap that takes everything from a control plane.
func (l *line) dynamic(d dialect) string {
	xds := plane.NewSnapshots(l.T)
	set := []plane.Resource{
		edsCluster("back"), endpoints("back", l.one.Port), staticCluster("echo", l.echo), routes("routes", "back", "1"),
	}
	for _, text := range l.listeners(true, rds("routes")) {
		set = append(set, plane.Listener(text))
	}
	xds.Set(set...)
	return "stats_flush_interval: 0.2s\n" + adsBootstrap(l.admin, xds.Port, d, "", "")
}

// start starts the process of the next epoch.
func (l *line) start(bootstrap string, more ...string) *kit.Proxy {
	args := append([]string{
		"--drain-time-s", fmt.Sprint(drainSeconds), "--parent-shutdown-time-s", fmt.Sprint(shutdownSeconds),
		"--concurrency", l.workers[l.epoch%len(l.workers)], "-l", "info",
	}, more...)
	p := l.Generation(l.base, l.epoch, l.admin, bootstrap, args...)
	l.epoch++
	return p
}

// serves waits until the process of an epoch is the one that the admin's address leads to, and is live.
func (l *line) serves(p *kit.Proxy, epoch int) {
	p.Ready(20 * time.Second)
	l.Eventually(20*time.Second, fmt.Sprintf("epoch %d serves", epoch), func() error {
		if !p.Running() {
			l.Fatalf("epoch %d ended: %s", epoch, p.Tail(300))
		}
		// A parent that ends may break off an answer of its admin.
		_, body, err := p.Get("/stats?filter=" + url.QueryEscape("^server.(hot_restart_epoch|live)$"))
		if want := fmt.Sprintf("server.hot_restart_epoch: %d\nserver.live: 1\n", epoch); err == nil && body != want {
			err = fmt.Errorf("it says %q", body)
		}
		return err
	})
}

// loads ask every HTTP listener: on connections that are kept, on new ones, over HTTP/2, on the unix
// socket. POST, which no client sends twice by itself once it was written.
func (l *line) loads() []*kit.Load {
	post := func(r *http.Request) { r.Method = http.MethodPost }
	plain := fmt.Sprintf("http://127.0.0.1:%d/", l.http)
	secure := fmt.Sprintf("https://127.0.0.1:%d/", l.https)
	// One each: a transport for HTTP/2 writes its protocols into its configuration.
	trust := func() *tls.Config { return &tls.Config{RootCAs: l.ca.Pool()} }
	unix := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.pipe)
	}
	return []*kit.Load{
		l.Load(kit.LoadOptions{URL: plain, Request: post, Clients: 8}),
		l.Load(kit.LoadOptions{URL: plain, Request: post, FreshConnections: true}),
		l.Load(kit.LoadOptions{URL: secure, Request: post, TLS: trust(), HTTP2: true}),
		l.Load(kit.LoadOptions{URL: secure, Request: post, TLS: trust(), FreshConnections: true, Clients: 2}),
		l.Load(kit.LoadOptions{URL: plain, Request: post, Dial: unix, Clients: 2}),
		l.Load(kit.LoadOptions{URL: plain, Request: post, Dial: unix, FreshConnections: true, Clients: 2}),
	}
}

// restarts is the main proof: under load, and with connections that live through the drain.
func (l *line) restarts(bootstrap string) {
	now := l.start(bootstrap)
	l.serves(now, 0)
	loads := l.loads()
	l.Eventually(10*time.Second, "every load is answered", func() error {
		for i, load := range loads {
			if load.Seen("one") < 5 {
				return fmt.Errorf("load %d has %d answers", i, load.Seen("one"))
			}
		}
		return nil
	})
	for epoch := 1; epoch <= l.restartN; epoch++ {
		long := l.open(l.connections)
		l.OK(long.each(roundTrip), "before the restart")
		counted := now.Stat("http.http.downstream_rq_2xx")
		before, began := now, time.Now()
		now = l.start(bootstrap)
		l.serves(now, epoch)
		// The parent's shutdown time counts from when the child is live, which is after it was started.
		for time.Since(began) < shutdownSeconds*time.Second {
			if err := long.each(roundTrip); err != nil && time.Since(began) < shutdownSeconds*time.Second {
				l.Fatalf("before the parent's time was over: %v", err)
			}
		}
		if n := now.Stat("server.hot_restart_generation"); n != epoch+1 {
			l.Fatalf("epoch %d is of generation %d", epoch, n)
		}
		code, err := before.Wait((shutdownSeconds + 10) * time.Second)
		l.OK(err, "the parent")
		l.Expect(code == 0, "the parent ended with exit code %d", code)
		l.carriedOver(now, counted)
		long.close()
	}
	for _, load := range loads {
		load.StopClean(l.T)
	}
	now.Stop()
}

// carriedOver: counters go on where the parent's were. Envoy hands over only what it had not yet flushed.
func (l *line) carriedOver(now *kit.Proxy, counted int) {
	_, info, err := now.Get("/server_info")
	l.OK(err, "/server_info")
	if !strings.Contains(info, "nuncio") {
		return
	}
	l.Eventually(5*time.Second, "requests are counted over the restart", func() error {
		if n := now.Stat("http.http.downstream_rq_2xx"); n < counted {
			return fmt.Errorf("%d, and the parent had %d", n, counted)
		}
		return nil
	})
	l.Expect(now.Stat("server.parent_connections") == 0, "a parent that ended has connections")
}

// tunnels are long-lived connections through tcp_proxy.
type tunnels struct {
	l     *line
	conns []net.Conn
}

func (l *line) open(n int) *tunnels {
	t := &tunnels{l: l}
	l.Cleanup(t.close)
	for range n {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.tcp))
		l.OK(err, "a long-lived connection")
		t.conns = append(t.conns, c)
	}
	return t
}

// each does something on every connection.
func (t *tunnels) each(do func(net.Conn) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(t.conns))
	for _, c := range t.conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := do(c); err != nil {
				errs <- err
			}
		}()
	}
	wg.Wait()
	close(errs)
	if failed := len(errs); failed > 0 {
		return fmt.Errorf("%d of %d long-lived connections failed, first: %w", failed, len(t.conns), <-errs)
	}
	return nil
}

func (t *tunnels) close() {
	for _, c := range t.conns {
		_ = c.Close()
	}
}

func roundTrip(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

// betterThanEnvoy: Envoy ends, or never lets another child start, where a process of the line dies.
func betterThanEnvoy(run func(*line)) func(*line) {
	return func(l *line) {
		out, err := exec.Command(l.Binary, "--hot-restart-version").Output()
		l.OK(err, "--hot-restart-version")
		if strings.Contains(string(out), "nuncio") {
			run(l)
		} else {
			l.Note("not for version %s", out)
		}
	}
}

// otherWorkers: with fewer workers than before, what waits in the queues of the others is served too.
func otherWorkers(l *line) {
	l.workers = []string{"4", "1", "3"}
	l.restarts(l.static(true))
}

// childDies: a child that is killed while it initialises changes nothing, and the next one follows.
func childDies(l *line) {
	parent := l.start(l.static(true))
	l.serves(parent, 0)
	loads, long := l.loads(), l.open(20)
	// It waits for a control plane that never answers.
	stuck := adsBootstrap(l.admin, l.Port(), delta, "", ", initial_fetch_timeout: 0s")
	child := l.start(stuck)
	time.Sleep(time.Second)
	l.Expect(child.Running(), "the child ended: %s", child.Tail(300))
	child.Kill()
	l.epoch--
	seen := loads[1].Seen("one")
	l.Eventually(10*time.Second, "new connections are served", func() error {
		if n := loads[1].Seen("one"); n < seen+50 {
			return fmt.Errorf("%d answers", n-seen)
		}
		return nil
	})
	l.OK(long.each(roundTrip), "after the child died")
	next := l.start(l.static(true))
	l.serves(next, 1)
	for _, load := range loads {
		load.StopClean(l.T)
	}
	next.Stop()
}

// parentDies: a parent that is killed while it drains takes its connections with it, nothing else.
func parentDies(l *line) {
	parent := l.start(l.static(true))
	l.serves(parent, 0)
	child := l.start(l.static(true))
	l.serves(child, 1)
	time.Sleep((drainSeconds + 1) * time.Second)
	parent.Kill()
	loads := l.loads()
	seen := loads[1].Seen("one")
	l.Eventually(10*time.Second, "new connections are served", func() error {
		if n := loads[1].Seen("one"); n < seen+50 {
			return fmt.Errorf("%d answers", n-seen)
		}
		return nil
	})
	for _, load := range loads {
		load.StopClean(l.T)
	}
	next := l.start(l.static(true))
	l.serves(next, 2)
	code, err := child.Wait((shutdownSeconds + 10) * time.Second)
	l.OK(err, "the parent")
	l.Expect(code == 0, "the parent ended with exit code %d", code)
	next.Stop()
}
