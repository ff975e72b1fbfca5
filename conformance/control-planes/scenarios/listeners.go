package scenarios

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// listeners: listeners change again and again, and no connection ends that need not.
func listeners() []Scenario {
	return both("listeners/updates-under-load", listenerUpdates)
}

// connections are long-lived ones that say something now and then. The first that ends, or is answered
// wrongly, is remembered.
type connections struct {
	stop chan struct{}
	wg   sync.WaitGroup
	said atomic.Int64

	mu    sync.Mutex
	first error
	lost  int
}

func (c *connections) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost++
	if c.first == nil {
		c.first = err
	}
}

// keep runs `say` twice a second, at another moment for each connection, until it fails or all stop.
func (c *connections) keep(n int, say func() error, end func()) {
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer end()
		wait := time.Duration(n%50) * 10 * time.Millisecond
		for {
			select {
			case <-c.stop:
				return
			case <-time.After(wait):
			}
			wait = 500 * time.Millisecond
			if err := say(); err != nil {
				c.lose(err)
				return
			}
			c.said.Add(1)
		}
	}()
}

// proxied keeps connections whose bytes come back.
func (c *connections) proxied(s *site, count, port int) {
	for n := range count {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		s.OK(err, "a connection that is proxied")
		line := []byte("say\n")
		c.keep(n, func() error {
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				return err
			}
			if _, err := conn.Write(line); err != nil {
				return fmt.Errorf("proxied bytes: %w", err)
			}
			if _, err := io.ReadFull(conn, make([]byte, len(line))); err != nil {
				return fmt.Errorf("proxied bytes: %w", err)
			}
			return nil
		}, func() { conn.Close() })
	}
}

// http keeps connections of HTTP/1 or of HTTP/2, each with its own client, which must not open a second one.
func (c *connections) http(s *site, count, port int, h2 bool) {
	for n := range count {
		var dials atomic.Int64
		dial := func() (net.Conn, error) {
			dials.Add(1)
			return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		}
		var transport http.RoundTripper = &http.Transport{
			MaxConnsPerHost: 1,
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return dial() },
		}
		if h2 {
			transport = &http2.Transport{
				AllowHTTP:      true,
				DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { return dial() },
			}
		}
		client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
		c.keep(n, func() error {
			resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/kept", port))
			if err != nil {
				return fmt.Errorf("a kept connection: %w", err)
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				return fmt.Errorf("a kept connection: %w", err)
			}
			switch {
			case resp.StatusCode != http.StatusOK:
				return fmt.Errorf("a kept connection: %d", resp.StatusCode)
			case resp.Close:
				return fmt.Errorf("a kept connection was asked to go (%s)", resp.Proto)
			case dials.Load() != 1:
				return fmt.Errorf("a kept connection was replaced (%s)", resp.Proto)
			}
			return nil
		}, client.CloseIdleConnections)
	}
}

// updated has a chain for each of three ports, of which the last one is another in each version.
func updated(proxied, kept, moving, n int) plane.Resource {
	chain := func(name string, port int, filters string) string {
		return fmt.Sprintf("\n- name: %s\n  filter_chain_match: {destination_port: %d}\n  filters:%s", name, port, filters)
	}
	route := func(version int) string {
		return fmt.Sprintf("route_config: {virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: back}}], response_headers_to_add: [{header: {key: x-version, value: \"%d\"}}]}]}", version)
	}
	tcp := `
  - name: tcp
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: kept, cluster: echo}`
	http := func(version int) string { return strings.ReplaceAll(hcm(route(version)), "\n", "\n  ") }
	other := func(port int) string {
		return fmt.Sprintf("{address: {socket_address: {address: 127.0.0.1, port_value: %d}}}", port)
	}
	return plane.Listener(fmt.Sprintf(`
name: chains
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
additional_addresses: [%s, %s]
filter_chains:%s%s%s`, proxied, other(kept), other(moving),
		chain("proxied", proxied, tcp), chain("kept", kept, http(0)), chain("moving", moving, http(n))))
}

// whole is another listener in each version, at the same address.
func whole(port, n int) plane.Resource {
	return listener("whole", port, "route_config: {virtual_hosts: [{name: all, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: back}}]}]}",
		fmt.Sprintf("\nper_connection_buffer_limit_bytes: %d", 100000+n))
}

// listenerUpdates: one filter chain of a listener, and the whole of another one, change under load. The connections of the
// chains beside it go on, and nobody who asks the ones that change is left without an answer.
func listenerUpdates(s *site) {
	updates, long := 20, 200
	if s.Long {
		updates, long = 100, 1000
	}
	one := s.Upstream("one", nil)
	proxied, kept, moving, replaced := s.Port(), s.Port(), s.Port(), s.port
	xds := plane.NewSnapshots(s.T)
	back, bytes := staticCluster("back", one.Port), staticCluster("echo", s.EchoServer())
	set := func(n int) { xds.Set(back, bytes, updated(proxied, kept, moving, n), whole(replaced, n)) }
	set(0)
	// A second of its drain time is not enough for a connection to hear of it with its next answer.
	proxy := s.Proxy("proxy", s.admin, adsBootstrap(s.admin, xds.Port, s.d, "", ""), "-l", "warning", "--drain-time-s", "3")
	proxy.Ready(15 * time.Second)

	all := &connections{stop: make(chan struct{})}
	stop := sync.OnceFunc(func() { close(all.stop); all.wg.Wait() })
	s.Cleanup(stop)
	all.proxied(s, long/2, proxied)
	all.http(s, long/4, kept, false)
	all.http(s, long/4, kept, true)
	s.Eventually(20*time.Second, "every connection has said something", func() error {
		if said := all.said.Load(); said < int64(long) {
			return fmt.Errorf("%d of %d", said, long)
		}
		return nil
	})

	at := func(port int, fresh bool) *kit.Load {
		return s.Load(kit.LoadOptions{URL: fmt.Sprintf("http://127.0.0.1:%d/", port), FreshConnections: fresh})
	}
	loads := []*kit.Load{at(moving, false), at(moving, true), at(replaced, false), at(replaced, true)}
	for n := 1; n <= updates; n++ {
		set(n)
		s.stat(proxy, "listener_manager.listener_in_place_updated", n)
		s.stat(proxy, "listener_manager.listener_modified", 2*n)
		for _, load := range loads {
			waitFor(s, load, "one", 5)
		}
	}
	for _, drains := range []string{"total_filter_chains_draining", "total_listeners_draining"} {
		s.stat(proxy, "listener_manager."+drains, 0)
	}
	said := all.said.Load()
	s.Eventually(20*time.Second, "every connection has said something again", func() error {
		if more := all.said.Load() - said; more < int64(long) {
			return fmt.Errorf("%d of %d", more, long)
		}
		return nil
	})
	stop()
	s.Expect(all.lost == 0, "%d of %d connections of chains that did not change were lost, first: %v", all.lost, long, all.first)
	for _, load := range loads {
		load.StopClean(s.T)
	}
	s.Note("%d updates of a filter chain and as many of a listener: %d long-lived connections spoke %d times", updates, long, all.said.Load())
	proxy.Stop()
}
