# noema - `make` builds, `make demo` shows, `make check` tests. See README.md.
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
OPT     ?= -O2
WARN    := -Wall -Wextra $(WERROR)
PKGS    := jansson libpcre2-8 libutf8proc sqlite3 libxxhash
CFLAGS  := -std=gnu17 $(OPT) -g $(WARN) -ffp-contract=off -fno-math-errno -fPIC -pthread \
           -MMD -MP -Iinclude -Isrc $(SAN) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS  := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread
FOLDERS := core tensor file text report model world look study cli
LIBSRC  := $(foreach d,$(filter-out cli,$(FOLDERS)),$(wildcard src/$(d)/*.c))
CLISRC  := $(wildcard src/cli/*.c)
UNIT    := $(wildcard tests/unit/*_test.c)
FUZZ    := $(wildcard tests/fuzz/*_fuzz.c)
LIBOBJ  := $(LIBSRC:%.c=$(BUILD)/%.o)
CLIOBJ  := $(CLISRC:%.c=$(BUILD)/%.o)

# Instruction sets are flags of single files; everything else is plain x86-64.
$(BUILD)/src/tensor/kern_portable.o: CFLAGS += -O3
$(BUILD)/src/tensor/kern_avx2.o:   CFLAGS += -O3 -mavx2 -mfma -mf16c
$(BUILD)/src/tensor/kern_avx512.o: CFLAGS += -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c

all: $(BUILD)/noema

$(BUILD)/libnoema.a: $(LIBOBJ)
	@rm -f $@ && ar rcs $@ $^
$(BUILD)/noema: $(CLIOBJ) $(BUILD)/libnoema.a
	@echo "  link $@"; $(CC) $(SAN) -o $@ $^ $(LDLIBS)
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"; $(CC) $(CFLAGS) -c -o $@ $<

# Each tests/unit/X_test.c is one program (cmocka).
$(BUILD)/tests/unit/%_test: $(BUILD)/tests/unit/%_test.o $(BUILD)/libnoema.a
	@echo "  link $@"; $(CC) $(SAN) -o $@ $^ -lcmocka -llinear $(LDLIBS)
unit: $(UNIT:%.c=$(BUILD)/%)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all unit
.PRECIOUS: $(BUILD)/%.o
