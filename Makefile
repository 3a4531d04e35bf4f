# The verbs people type; each is one line onto a script or CMake. `make run` and `make test` need
# nothing before them: they install what is missing, build, and go.
JOBS ?= 2
BUILD = cmake --build $(1) -j$(JOBS)
CONFIGURE = cmake -S . -B build/$(1) -G Ninja $(2)

.PHONY: run test build deps asan tsan unit bench bench-wal unit-long crash-long fuzz fmt tidy clean

run: build
	build/release/crabcache-server conf/crabcache.toml --wal-enabled yes --wal-dir ./data/wal

build: deps
	@$(call CONFIGURE,release,-DCMAKE_BUILD_TYPE=Release) > /dev/null
	$(call BUILD,build/release) --target crabcache-server crabcache-wal

deps:
	@utils/install-dependencies

test: deps
	tests/run-all

unit: deps
	@$(call CONFIGURE,release,-DCMAKE_BUILD_TYPE=Release) > /dev/null
	$(call BUILD,build/release)
	ctest --test-dir build/release --output-on-failure

# Every crash point, fault and damage of which `make test` takes a sample: hours.
unit-long: deps
	@$(call CONFIGURE,release,-DCMAKE_BUILD_TYPE=Release) > /dev/null
	$(call BUILD,build/release)
	CRAB_TEST_LONG=1 ctest --test-dir build/release --output-on-failure --timeout 86400

asan: deps
	tests/run-sanitized address

tsan: deps
	tests/run-sanitized thread

bench: build
	redis-compat/bench/run.py $(ARGS)

bench-wal: build
	$(call BUILD,build/release) --target memory_floor paced_load stall_fdatasync
	redis-compat/bench/wal.py $(ARGS)

# At least 300 kills; `make test` has as many as fit in a minute.
crash-long: build
	redis-compat/crash/run.py --kills 100 $(ARGS)
	redis-compat/crash/full_disk.py --cycles 6 $(ARGS)

fuzz: deps
	@$(call CONFIGURE,release,-DCMAKE_BUILD_TYPE=Release) > /dev/null
	$(call BUILD,build/release) --target parser_fuzz log_fuzz
	build/release/parser_fuzz $(or $(SECONDS),60)
	build/release/log_fuzz $(or $(SECONDS),60)

fmt:
	git ls-files '*.cc' '*.h' | xargs clang-format -i

tidy: deps
	@$(call CONFIGURE,release,-DCMAKE_BUILD_TYPE=Release) > /dev/null
	git ls-files 'src/*.cc' 'resp/*.cc' 'persistence/*.cc' 'utils/*.cc' | \
	  xargs -P $(JOBS) -n 4 clang-tidy -p build/release --quiet

clean:
	rm -rf build
