package scenarios

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// scale: an ordinary configuration has ten thousand clusters. -long runs with as many; the short run, which belongs
// to every build, with a few hundred. Figures are printed, and nothing is decided by the time they take.
func scale() []Scenario {
	var out []Scenario
	out = append(out, Scenario{"scale/one-endpoint-among-all/delta", with(delta, oneEndpoint)})
	out = append(out, Scenario{"scale/1000-endpoint-updates-a-second/delta", with(delta, endpointChurn)})
	out = append(out, both("scale/all-clusters-removed-and-back", removeAll)...)
	out = append(out, both("scale/memory-after-20-reloads", reloads)...)
	out = append(out, both("scale/endpoint-updates-keep-connections", keepConnections)...)
	return out
}

// many is how many clusters a scenario has.
func many(s *site) int {
	if s.Long {
		return 10000
	}
	return 300
}

// oneEndpoint moves the only endpoint of one cluster, and nothing else stirs.
func oneEndpoint(s *site) {
	f := newFleet(s, many(s), 1)
	client := &http.Client{Timeout: 5 * time.Second}
	name := f.names[len(f.names)/2]
	changes, updated := f.changes(), f.proxy.Stat("cluster_manager.cluster_updated")
	const rounds = 40
	var took []time.Duration
	for n := range rounds {
		host := fmt.Sprintf("127.200.0.%d", 1+n)
		start := time.Now()
		f.push(fmt.Sprintf("move-%d", n), name, []string{host})
		f.Eventually(10*time.Second, "the endpoint moves", func() error {
			// Without the pause of a retry: the time is what is wanted.
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				if at, err := f.ask(client, name); err != nil || at == host {
					return err
				}
			}
			return fmt.Errorf("requests go to the old one")
		})
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	f.Note("from the control plane to the first answer of the new endpoint: median %v, slowest %v", took[rounds/2], took[rounds-1])
	// Every change of membership in the proxy is one of this cluster's.
	f.Expect(f.changes()-changes == rounds, "%d changes of membership for %d updates of one cluster", f.changes()-changes, rounds)
	now := f.proxy.Stat("cluster_manager.cluster_updated")
	f.Expect(now-updated == rounds, "%d updates of clusters for %d of one cluster", now-updated, rounds)
	f.proxy.Stop()
}

// endpointChurn replaces one endpoint of a random cluster a thousand times a second, each in a response of its own.
func endpointChurn(s *site) {
	f := newFleet(s, many(s), 10)
	load := f.load()
	changes, before := f.changes(), f.proxy.Usage(s.T)
	during := 3 * time.Second
	if s.Long {
		during = 20 * time.Second
	}
	sent, start := 0, time.Now()
	for now := time.Duration(0); now < during; now = time.Since(start) {
		for ; sent < int(now/time.Millisecond); sent++ {
			i := rand.IntN(len(f.names))
			fresh := hosts(i, 10)
			fresh[rand.IntN(10)] = fmt.Sprintf("127.%d.%d.%d", 100+sent%100, i/250, 1+i%250)
			f.push(fmt.Sprintf("churn-%d", sent), f.names[i], fresh)
		}
		time.Sleep(time.Millisecond)
	}
	// A random cluster now and then is given what it has: then nothing changes.
	f.Eventually(30*time.Second, "all updates are applied", func() error {
		if n := f.changes() - changes; n < sent*9/10 {
			return fmt.Errorf("%d of %d", n, sent)
		}
		return nil
	})
	lag := time.Since(start) - during
	used := f.proxy.Usage(s.T).Since(before)
	load.StopClean(s.T)
	f.Note("%d updates in %v, all applied %v later, %d requests: %.2f s of processor time, %.0f MB",
		sent, during, lag.Round(time.Millisecond), load.Total(), used.CPU.Seconds(), used.MB)
	f.proxy.Stop()
}

// removeAll takes all clusters away and brings them back.
func removeAll(s *site) {
	f := newFleet(s, many(s), 2)
	client := &http.Client{Timeout: 5 * time.Second}
	names, assignments := f.names, f.xds.Content(plane.EndpointType)
	for n := range 3 {
		before, start := f.proxy.Usage(s.T), time.Now()
		f.names = nil
		f.xds.Set(plane.ClusterType, fmt.Sprintf("none-%d", n))
		f.active(0)
		gone := time.Since(start)
		empty := f.proxy.Usage(s.T)
		f.names = names
		f.xds.Set(plane.EndpointType, fmt.Sprintf("back-%d", n), assignments...)
		f.setClusters(fmt.Sprintf("back-%d", n), n)
		f.active(len(names))
		used := f.proxy.Usage(s.T).Since(before)
		f.Note("gone after %.2f s (%.0f MB), back after %.2f s (%.0f MB), %.2f s of processor time",
			gone.Seconds(), empty.MB, time.Since(start).Seconds(), used.MB, used.CPU.Seconds())
		for _, i := range []int{0, len(names) / 2, len(names) - 1} {
			_, err := f.ask(client, names[i])
			f.OK(err, "a cluster that is back")
		}
	}
	f.proxy.Stop()
}

// reloads changes every cluster twenty times. What the process holds must not grow with it.
func reloads(s *site) {
	f := newFleet(s, many(s), 1)
	var first, last, cpu float64
	before := f.proxy.Usage(s.T)
	for n := 1; n <= 20; n++ {
		modified := f.proxy.Stat("cluster_manager.cluster_modified")
		f.setClusters(fmt.Sprintf("reload-%d", n), n)
		f.Eventually(time.Minute, "every cluster is another", func() error {
			if now := f.proxy.Stat("cluster_manager.cluster_modified"); now-modified < len(f.names) {
				return fmt.Errorf("%d of %d", now-modified, len(f.names))
			}
			return nil
		})
		f.active(len(f.names))
		// Freed memory is given back with a delay: the least of a while is what the process holds.
		held := f.proxy.Usage(s.T).MB
		if n == 5 || n == 20 {
			for range 30 {
				time.Sleep(100 * time.Millisecond)
				held = min(held, f.proxy.Usage(s.T).MB)
			}
		}
		switch n {
		case 5:
			first = held
		case 20:
			last = held
		}
	}
	cpu = f.proxy.Usage(s.T).Since(before).CPU.Seconds()
	f.Note("%.0f MB after 5 reloads, %.0f MB after 20; %.2f s of processor time for each", first, last, cpu/20)
	f.Expect(last < first*1.1+2, "%.0f MB after 5 reloads, %.0f MB after 20", first, last)
	f.proxy.Stop()
}

// keepConnections changes the endpoints around three that stay: their connections stay too.
func keepConnections(s *site) {
	xds := plane.NewScript(s.T)
	stay := []*counted{newCounted(s.T), newCounted(s.T), newCounted(s.T)}
	guest := newCounted(s.T)
	ports := []int{stay[0].port, stay[1].port, stay[2].port}
	xds.Set(plane.EndpointType, "0", endpoints("back", ports...))
	xds.Set(plane.ClusterType, "1", edsCluster("back"))
	xds.Set(plane.RouteType, "1", routes("routes", "back", "1"))
	xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes")))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.status("/", 200)
	load := s.Load(kit.LoadOptions{URL: s.url("/"), Clients: 4})
	updates := 0
	for end := time.Now().Add(s.LoadTime(4 * time.Second)); time.Now().Before(end); updates++ {
		// A guest comes and goes, the others change places.
		rand.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
		now := ports
		if updates%2 == 0 {
			now = append(slices.Clone(ports), guest.port)
		}
		xds.Set(plane.EndpointType, fmt.Sprint(updates+1), endpoints("back", now...))
		time.Sleep(10 * time.Millisecond)
	}
	load.StopClean(s.T)
	s.stat(proxy, "cluster.back.membership_change", updates+1)
	var opened []int
	for _, upstream := range stay {
		opened = append(opened, int(upstream.opened.Load()))
	}
	s.Note("%d updates, %d requests; connections to those that stayed: %v, to the guest: %d", updates, load.Total(), opened, guest.opened.Load())
	// One request of each client at most is on its way to a host, and a request of the check before.
	for _, n := range opened {
		s.Expect(n <= 4+1, "%d connections were opened to a host that stayed, by 4 clients", n)
	}
	s.Expect(guest.opened.Load() > 1, "the guest was never used")
	proxy.Stop()
}

// counted is an upstream that counts its connections.
type counted struct {
	port   int
	opened atomic.Int64
}

func newCounted(t *kit.T) *counted {
	c := &counted{}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	t.OK(err, "upstream")
	c.port = socket.Addr().(*net.TCPAddr).Port
	var once sync.Map
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "counted") }),
		ConnState: func(conn net.Conn, state http.ConnState) {
			if _, known := once.LoadOrStore(conn, true); !known {
				c.opened.Add(1)
			}
			if state == http.StateClosed {
				once.Delete(conn)
			}
		},
	}
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(func() { _ = server.Close() })
	return c
}
